"""Detection settings of users. The defaults fit every run that we have seen; no curve has its own."""

from dataclasses import dataclass
from typing import Any

from monitor.detection.validation import check_types


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
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown detection settings: {', '.join(unknown)}")
        return cls(**values)
