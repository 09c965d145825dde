"""Settings of users: of the detection, and of the policy, which says how far it may go on its own.

The defaults fit every run that we have seen; no curve has its own.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.states import OrderMode

MAX_SETTING = 2**53
"""The largest number that a setting may have: every JSON reader still reads it exactly."""


def check_types(values: Any) -> None:
    """Raises ValueError naming the first field of a dataclass whose value is not of the field's type."""
    for field in fields(values):
        value, kind = getattr(values, field.name), field.type
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"{field.name} must be true or false, not {value!r}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is int and not (number and isinstance(value, int)):
            raise ValueError(f"{field.name} must be a whole number, not {value!r}")
        if kind is float and not (number and (isinstance(value, int) or math.isfinite(value))):
            raise ValueError(f"{field.name} must be a finite number, not {value!r}")
        if number and abs(value) > MAX_SETTING:
            raise ValueError(f"{field.name} must be at most {MAX_SETTING}")


def check_names(kind: type, values: Iterable[str], what: str) -> None:
    """Raises ValueError for names that are no fields of the dataclass."""
    if unknown := sorted({*values} - {field.name for field in fields(kind)}):
        raise ValueError(f"unknown {what} settings: {', '.join(unknown)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSettings:
    """Raises ValueError that names the first invalid value."""

    false_alarms_per_10k: float = 1.0
    """Target false incidents per 10,000 rows of a healthy run; the thresholds follow from the run's own tail."""
    warmup_rows: int = 24
    """Rows that a signal needs before anything but a gross jump can be an alarm."""
    adopt_rows: int = 96
    """Rows out of band after which their level becomes the new baseline; of the loss above its band only where nobody
    was alarmed, or a person has decided."""
    calm_rows: int = 3
    """Rows back in band that end an incident."""
    plateau_steps: int = 100_000
    """Steps without a lower loss level before the plateau advisory; 0 turns it off."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("false_alarms_per_10k", "warmup_rows", "adopt_rows", "calm_rows"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.false_alarms_per_10k > 1000:
            raise ValueError(f"false_alarms_per_10k must be at most 1000, not {self.false_alarms_per_10k!r}")
        if self.plateau_steps < 0:
            raise ValueError(f"plateau_steps must not be negative, not {self.plateau_steps!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectionSettings":
        """Raises ValueError for an unknown name."""
        check_names(cls, values, "detection")
        return cls(**values)


PATIENCE_ROWS = 4
"""Rows in which it can be seen whether a loss falls back, where a row is not every step."""


Mode = OrderMode
SKIP_WIDTHS = ("skip_min", "skip_max", "max_skip")


class WhenStructural(StrEnum):
    HOLD = "hold"  # hold the run until a person decides
    CONTINUE = "continue"  # go on without a further order, and say why in the incident


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Raises ValueError that names the first invalid value."""

    mode: Mode = Mode.OBSERVE
    name: str = "adaptive"
    """The policy that decides: adaptive, palm, or one that is installed beside Lossguard (see `policies`)."""
    min_depth: int = 100
    """palm: steps between the restored checkpoint and the onset, at least. adaptive: what a sure attempt goes back."""
    deep_factor: int = 10
    """palm: for a divergence the depth is multiplied by this, up to a quarter of the run: its cause is further back."""
    skip_min: int = 200
    """palm: batches to skip, at least. adaptive: what a sure attempt skips."""
    skip_max: int = 500
    """palm: batches to skip, at most."""
    patience: int = 16
    """Steps in which a loss that falls back must halve its excess; as long as it does, the policy waits."""
    rise_rows: int = 5
    """Consecutive rows out of band on which the loss rises that make the policy stop waiting."""
    verify_steps: int = 75
    """Steps past the incident without a recurrence that verify an intervention."""
    attempts_per_site: int = 2
    """palm: rollbacks at one site, each deeper and wider, before the learning rate is lowered or the run is held."""
    max_attempts: int = 6
    """adaptive: the same; the first attempts are shallow, and each further one depends on what the last one showed."""
    max_skip: int = 4096
    """adaptive: batches that one rollback may skip, at most."""
    batch_cost: float = 0.5
    """adaptive: what a batch that is never trained on costs, in steps of training."""
    budget_per_run: int = 20
    """Rollbacks that the policy may order in a run before it holds the run (PaLM's largest run needed about 20)."""
    allow_lr_scale: bool = False
    """True if the last attempt at a site may halve the learning rate."""
    lr_scale: float = 0.5
    """The factor of that last attempt."""
    when_structural: WhenStructural = WhenStructural.HOLD
    """Action when neither depth nor width nor a remedy got the run past its trouble: hold or continue."""
    restart_steps: int = 10
    """Cost of loading a checkpoint, in steps of training."""

    def __post_init__(self) -> None:
        if self.mode not in tuple(Mode):
            raise ValueError(f"mode must be one of {', '.join(Mode)}, not {self.mode!r}")
        object.__setattr__(self, "mode", Mode(self.mode))
        if self.when_structural not in tuple(WhenStructural):
            raise ValueError(f"when_structural must be hold or continue, not {self.when_structural!r:.80}")
        object.__setattr__(self, "when_structural", WhenStructural(self.when_structural))
        if not isinstance(self.name, str):
            raise ValueError(f"name must be a text, not {self.name!r:.80}")
        check_types(self)
        positive = (
            "min_depth",
            "deep_factor",
            "skip_min",
            "patience",
            "rise_rows",
            "verify_steps",
            "attempts_per_site",
            "max_attempts",
            "max_skip",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.skip_max < self.skip_min:
            raise ValueError(f"skip_max ({self.skip_max}) must not be below skip_min ({self.skip_min})")
        for name in ("budget_per_run", "restart_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if not self.batch_cost > 0:
            raise ValueError(f"batch_cost must be above 0, not {self.batch_cost!r}")
        if not 0 < self.lr_scale <= 1:
            raise ValueError(f"lr_scale must be in (0, 1], not {self.lr_scale!r}")

    def paced(self, stride: int) -> "Policy":
        """The policy for rows that are `stride` steps apart: whether a loss falls back is seen in rows."""
        if stride == 1:
            return self
        steps = PATIENCE_ROWS * stride
        return replace(self, patience=max(self.patience, steps), verify_steps=max(self.verify_steps, steps))

    def within(self, limits: Limits) -> "Policy":
        """Return the policy without orders that the trainer says it would refuse."""
        mode = (Limits(mode=self.mode) & Limits(mode=limits.mode)).mode
        most = limits.max_skip
        skips = {} if most is None else {name: min(getattr(self, name), max(1, most)) for name in SKIP_WIDTHS}
        scales = self.allow_lr_scale and limits.allow_lr_scale
        return replace(self, mode=mode, allow_lr_scale=scales, **skips)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"mode": self.mode.value, "when_structural": self.when_structural.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Policy":
        """Raises ValueError for an unknown name."""
        check_names(cls, values, "policy")
        return cls(**values)
