"""The policy: from an incident's facts to the action that follows. Values in, values out.

`palm` is the rule of the PaLM paper (Chowdhery et al. 2022, section 5.1): rewind to a checkpoint about 100 steps before
the spike and skip 200-500 batches. Around it: patience for a loss that is falling back, escalation, budgets.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from lossguard.states import IncidentKind, OrderKind
from monitor.detection.validation import check_types


class Mode(StrEnum):
    OBSERVE = "observe"  # record what would be done, do nothing
    APPROVE = "approve"  # propose; an operator approves or rejects
    AUTO = "auto"  # order


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Raises ValueError that names the first invalid value."""

    mode: Mode = Mode.OBSERVE
    min_depth: int = 100
    """Steps between the restored checkpoint and the onset, at least."""
    deep_factor: int = 10
    """For a divergence the depth is multiplied by this, up to a quarter of the run: its cause lies further back."""
    skip_min: int = 200
    """Batches to skip, at least."""
    skip_max: int = 500
    """Batches to skip, at most."""
    patience: int = 16
    """Steps in which a loss that falls back must halve its excess; as long as it does, the policy waits."""
    rise_rows: int = 5
    """Consecutive rows out of band on which the loss rises that make the policy stop waiting."""
    verify_steps: int = 75
    """Steps past the incident without a recurrence that verify an intervention."""
    attempts_per_site: int = 2
    """Rollbacks at one site, each deeper and wider, before the learning rate is lowered or the run is held."""
    budget_per_run: int = 20
    """Rollbacks that the policy may order in a run before it holds the run (PaLM's largest run needed about 20)."""
    allow_lr_scale: bool = False
    """Whether the last attempt at a site may halve the learning rate."""
    lr_scale: float = 0.5
    """The factor of that last attempt."""
    restart_steps: int = 10
    """What loading a checkpoint costs, in steps of training."""

    def __post_init__(self) -> None:
        if self.mode not in tuple(Mode):
            raise ValueError(f"mode must be one of {', '.join(Mode)}, not {self.mode!r}")
        object.__setattr__(self, "mode", Mode(self.mode))
        check_types(self)
        positive = (
            "min_depth",
            "deep_factor",
            "skip_min",
            "patience",
            "rise_rows",
            "verify_steps",
            "attempts_per_site",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.skip_max < self.skip_min:
            raise ValueError(f"skip_max ({self.skip_max}) must not be below skip_min ({self.skip_min})")
        for name in ("budget_per_run", "restart_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if not 0 < self.lr_scale <= 1:
            raise ValueError(f"lr_scale must be in (0, 1], not {self.lr_scale!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"mode": self.mode.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Policy":
        """Raises ValueError for an unknown name."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown policy settings: {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What the policy may know of an open incident at a step. Excess is nats above the expected loss."""

    kind: IncidentKind
    onset_step: int
    detected_step: int
    step: int
    non_finite: bool
    """A signal is not finite at this step."""
    loss_moved: bool
    """The loss itself is, or was, out of band (not a precursor alone)."""
    excess: float
    check_excess: float
    """The excess when the present span of patience began, at `check_step`."""
    check_step: int
    rising_rows: int
    """Consecutive rows, up to this one, on which the loss rose while out of band."""
    falls: int
    rises: int
    """Rows since detection on which the loss fell, or rose."""
    attempt: int
    """1 for the first intervention at this site."""
    rollbacks_used: int
    """Rollbacks by the policy that were ordered in this run."""
    previous_rewind: int | None
    """The step that the previous attempt went back to."""
    restorable: Sequence[int]
    can_roll_back: bool
    structural: bool = False
    """A slow rise whose cause is the recipe: no rollback can be deep enough, or two did not stop it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind` None: wait. Reasons are whole sentences with their numbers."""

    kind: OrderKind | None
    rewind_to: int | None = None
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None
    reasons: list[str] = field(default_factory=list)
    unavailable: OrderKind | None = None
    """What would be done if the run could roll back."""
    afterwards: str = ""
    """The reason that is added to a decision to wait when the incident is over."""


@dataclass(frozen=True, slots=True)
class Costs:
    """In steps of training."""

    wait: float
    roll_back: float
    recovery_probability: float
    """That the loss recovers without a rollback (rule of succession over the rows seen)."""

    def describe(self, verb: str = "is") -> str:
        return (
            f"Waiting {verb} expected to cost {self.wait:.0f} steps "
            f"(probability of recovery {self.recovery_probability:.2f}), rolling back {self.roll_back:.0f}."
        )


def costs(policy: Policy, now: Situation, rewind_to: int | None) -> Costs:
    """Expected cost of one more span of patience against that of rolling back now.

    Waiting: with probability p the loss recovers after as long as it has been out of band, and those steps trained
    nothing; otherwise the patience is lost and the rollback comes on top.
    """
    depth = policy.min_depth if rewind_to is None else now.step - rewind_to
    roll_back = float(depth + policy.restart_steps)
    p = 0.0 if now.non_finite else (now.falls + 1) / (now.falls + now.rises + 2)
    recovery_steps = max(now.step - now.detected_step, policy.patience)
    return Costs(p * recovery_steps + (1 - p) * (policy.patience + roll_back), roll_back, p)


def reason_to_act(policy: Policy, now: Situation) -> str | None:
    """The reason to stop waiting, or None."""
    if now.non_finite:
        return "A signal is not finite, so waiting cannot help."
    if not now.loss_moved:
        return None
    if now.kind is IncidentKind.DIVERGENCE:
        return (
            f"The loss has been rising since step {now.onset_step}; a divergence does not recover without a rollback."
        )
    if now.rising_rows >= policy.rise_rows:
        return f"The loss rose on {now.rising_rows} consecutive rows: it is not falling back."
    waited = now.step - now.check_step
    if waited >= policy.patience and now.excess > 0.5 * now.check_excess:
        return (
            f"In {waited} steps the excess over the expected loss went from {now.check_excess:.3g} to "
            f"{now.excess:.3g} nats: it did not halve, so the policy stops waiting."
        )
    return None


def palm(policy: Policy, now: Situation, batch_of: Callable[[int], int]) -> Decision:
    """The default policy. `batch_of(step)` is the batch index with which a step began."""
    rewind_to, depth_reason = choose_checkpoint(policy, now)
    price = costs(policy, now, rewind_to)
    reason = reason_to_act(policy, now)
    if reason is None and now.loss_moved and price.recovery_probability < 0.2 and price.wait > price.roll_back:
        reason = "Waiting is now expected to cost more than rolling back."
    if reason is None:
        return wait(now, price)
    decision = act(policy, now, batch_of, [reason, price.describe()], rewind_to, depth_reason)
    return decision if now.can_roll_back else Decision(None, reasons=decision.reasons, unavailable=decision.kind)


def wait(now: Situation, price: Costs) -> Decision:
    if now.kind is IncidentKind.LOSS_COLLAPSE:
        reason = "The loss is too low to be true, not too high: a rollback would not help. Look at the data."
        return Decision(None, reasons=[reason], afterwards="Nothing was done: a low loss asks for a look at the data.")
    reason = "The loss may still fall back." if now.loss_moved else "The loss has not moved: save a checkpoint now."
    condition = "the loss could still fall back" if now.loss_moved else "the loss had not moved"
    afterwards = f"Nothing was done: {condition}. {price.describe('was')}"
    return Decision(None, reasons=[reason, price.describe()], afterwards=afterwards)


def act(
    policy: Policy,
    now: Situation,
    batch_of: Callable[[int], int],
    reasons: list[str],
    rewind_to: int | None,
    depth_reason: str,
) -> Decision:
    """What to do when there is nothing to wait for: roll back, or hold the run."""
    max_attempts = policy.attempts_per_site + (1 if policy.allow_lr_scale else 0)
    if now.attempt > max_attempts:
        return Decision(OrderKind.HOLD, reasons=[*reasons, f"All {max_attempts} attempts at this site failed."])
    if now.rollbacks_used >= policy.budget_per_run:
        reason = f"The run has used up its budget of {now.rollbacks_used} rollbacks."
        return Decision(OrderKind.HOLD, reasons=[*reasons, reason])
    if rewind_to is None:
        return Decision(OrderKind.HOLD, reasons=[*reasons, depth_reason])
    skip_from = batch_of(rewind_to)
    width = min(policy.skip_min * 2 ** (now.attempt - 1), policy.skip_max)
    skip_to = min(max(batch_of(now.detected_step) + 1, skip_from + width), skip_from + policy.skip_max)
    lr_scale = policy.lr_scale if now.attempt > policy.attempts_per_site else None
    reasons += [depth_reason, f"Skip batches {skip_from} to {skip_to - 1} ({skip_to - skip_from} batches)."]
    if lr_scale is not None:
        reasons.append(f"Rollbacks alone did not prevent a recurrence: the learning rate is scaled by {lr_scale:g}.")
    return Decision(OrderKind.ROLLBACK, rewind_to, skip_from, skip_to, lr_scale, reasons)


def choose_checkpoint(policy: Policy, now: Situation) -> tuple[int | None, str]:
    """The checkpoint to restore and the reason for it; None when there is none before the onset."""
    depth = policy.min_depth * 2 ** (now.attempt - 1)
    if now.kind is IncidentKind.DIVERGENCE:
        depth = max(depth, min(depth * policy.deep_factor, now.onset_step // 4))
    newest = now.onset_step - depth
    candidates = sorted(step for step in now.restorable if step <= now.onset_step)
    if now.previous_rewind is not None:
        newest = min(newest, now.previous_rewind - 1)
        candidates = [step for step in candidates if step < now.previous_rewind]
        if not candidates:
            limit = f"step {now.previous_rewind}, which the previous attempt restored"
            return None, f"There is no restorable checkpoint before {limit}."
    if not candidates:
        return None, f"There is no restorable checkpoint before the onset at step {now.onset_step}."
    deep, depth = [step for step in candidates if step <= newest], now.onset_step - newest
    if deep:
        return deep[-1], f"Rewind to {deep[-1]}, the newest checkpoint at least {depth} steps before the onset."
    oldest = candidates[0]
    return oldest, f"Rewind to {oldest}, the oldest checkpoint: none is {depth} steps before the onset."
