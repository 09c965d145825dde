"""The policy: from an incident's facts to what is done about it. Values in, values out.

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
    OBSERVE = "observe"  # write down what would be done, do nothing
    APPROVE = "approve"  # propose; a person approves or rejects
    AUTO = "auto"  # order


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Raises ValueError when a value makes no sense, naming it."""

    mode: Mode = Mode.OBSERVE
    min_depth: int = 100
    """Steps between the restored checkpoint and the onset, at least."""
    deep_factor: int = 10
    """A gradual divergence goes back so many times deeper, up to a quarter of the run: its cause lies further back."""
    skip_min: int = 200
    """Batches to skip, at least."""
    skip_max: int = 500
    """Batches to skip, at most."""
    patience: int = 16
    """Steps in which a loss that falls back must halve its excess; while it does, the policy waits."""
    rise_rows: int = 5
    """Rows out of band, each above the one before, that count as a continued rise: the policy stops waiting."""
    verify_steps: int = 75
    """Steps past the trouble without a recurrence that verify an intervention."""
    attempts_per_site: int = 2
    """Rollbacks at one site, each deeper and wider, before the learning rate is lowered or a person is asked."""
    budget_per_run: int = 20
    """The policy's rollbacks that are ordered in a run; then it holds for a person (PaLM's largest needed about 20)."""
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
    broken: bool
    """A watched value is not finite at this step."""
    moved: bool
    """The loss itself is, or was, out of band (not a precursor alone)."""
    excess: float
    check_excess: float
    """The excess when the present span of patience began, at `check_step`."""
    check_step: int
    rising_rows: int
    """Rows in a row, up to this one, on which the loss rose while out of band."""
    falls: int
    rises: int
    """Rows since detection on which the loss fell, or rose."""
    attempt: int
    """1 for the first intervention at this site."""
    spent: int
    """Rollbacks of the policy that were ordered in this run."""
    previous_rewind: int | None
    """Where the attempt before this one went back to."""
    restorable: Sequence[int]
    can_roll_back: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind` None: wait. Reasons are whole sentences with their numbers."""

    kind: OrderKind | None
    rewind_to: int | None = None
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None
    reasons: list[str] = field(default_factory=list)
    would: OrderKind | None = None
    """What would be done, were the run able to."""
    afterwards: str = ""
    """What is said of a decision to wait when the incident is over."""


@dataclass(frozen=True, slots=True)
class Costs:
    """In steps of training."""

    wait: float
    act: float
    recovers: float
    """Probability that the loss comes back by itself (rule of succession over the rows seen)."""

    def told(self, verb: str = "is") -> str:
        return (
            f"Waiting {verb} expected to cost {self.wait:.0f} steps (chance to recover by itself {self.recovers:.2f}), "
            f"rolling back {self.act:.0f}."
        )


def costs(policy: Policy, now: Situation, rewind_to: int | None) -> Costs:
    """Expected cost of one more span of patience against that of rolling back now.

    Waiting: with chance p the loss is back after as long as it has been out, training nothing meanwhile; otherwise
    the patience is lost and the rollback comes on top.
    """
    depth = policy.min_depth if rewind_to is None else now.step - rewind_to
    act = float(depth + policy.restart_steps)
    p = 0.0 if now.broken else (now.falls + 1) / (now.falls + now.rises + 2)
    back = max(now.step - now.detected_step, policy.patience)
    return Costs(p * back + (1 - p) * (policy.patience + act), act, p)


def why_act(policy: Policy, now: Situation) -> str | None:
    """The reason to stop waiting, or None."""
    if now.broken:
        return "A value is not finite: there is nothing to wait for."
    if not now.moved:
        return None
    if now.kind is IncidentKind.DIVERGENCE:
        return f"The loss has been rising slowly since step {now.onset_step}: such a rise does not come back by itself."
    if now.rising_rows >= policy.rise_rows:
        return f"The loss rose on {now.rising_rows} rows in a row: it is not falling back."
    waited = now.step - now.check_step
    if waited >= policy.patience and now.excess > 0.5 * now.check_excess:
        return (
            f"In {waited} steps the excess over the expected loss went from {now.check_excess:.3g} to "
            f"{now.excess:.3g} nats: not halved, so patience is over."
        )
    return None


def palm(policy: Policy, now: Situation, batch_of: Callable[[int], int]) -> Decision:
    """The default policy. `batch_of(step)` is the batch index with which a step began."""
    rewind_to, depth_words = depth(policy, now)
    price = costs(policy, now, rewind_to)
    reason = why_act(policy, now)
    if reason is None and now.moved and price.recovers < 0.2 and price.wait > price.act:
        reason = "Waiting has become dearer than rolling back."
    if reason is None:
        what = "The loss may still fall back" if now.moved else "The loss has not moved: save a checkpoint now"
        was = "the loss could still fall back" if now.moved else "the loss had not moved"
        afterwards = f"Nothing was done: {was}. {price.told('was')}"
        return Decision(None, reasons=[f"{what}.", price.told()], afterwards=afterwards)
    deed = act(policy, now, batch_of, [reason, price.told()], rewind_to, depth_words)
    return deed if now.can_roll_back else Decision(None, reasons=deed.reasons, would=deed.kind)


def act(
    policy: Policy,
    now: Situation,
    batch_of: Callable[[int], int],
    reasons: list[str],
    rewind_to: int | None,
    depth_words: str,
) -> Decision:
    """What to do when there is nothing to wait for: roll back, or ask a person."""
    last = policy.attempts_per_site + (1 if policy.allow_lr_scale else 0)
    if now.attempt > last:
        return Decision(OrderKind.HOLD, reasons=[*reasons, f"{last} attempts at this site did not hold."])
    if now.spent >= policy.budget_per_run:
        return Decision(OrderKind.HOLD, reasons=[*reasons, f"The run's budget of {now.spent} rollbacks is spent."])
    if rewind_to is None:
        return Decision(OrderKind.HOLD, reasons=[*reasons, depth_words])
    skip_from = batch_of(rewind_to)
    wide = min(policy.skip_min * 2 ** (now.attempt - 1), policy.skip_max)
    skip_to = min(max(batch_of(now.detected_step) + 1, skip_from + wide), skip_from + policy.skip_max)
    lr_scale = policy.lr_scale if now.attempt > policy.attempts_per_site else None
    reasons += [depth_words, f"Skip batches {skip_from} to {skip_to - 1}: {skip_to - skip_from} batches."]
    if lr_scale is not None:
        reasons.append(f"Deeper rollbacks alone did not hold: the learning rate is scaled by {lr_scale:g}.")
    return Decision(OrderKind.ROLLBACK, rewind_to, skip_from, skip_to, lr_scale, reasons)


def depth(policy: Policy, now: Situation) -> tuple[int | None, str]:
    """The checkpoint to restore and the sentence that says why; None when there is none before the onset."""
    wanted = policy.min_depth * 2 ** (now.attempt - 1)
    if now.kind is IncidentKind.DIVERGENCE:
        wanted = max(wanted, min(wanted * policy.deep_factor, now.onset_step // 4))
    bound = now.onset_step - wanted
    if now.previous_rewind is not None:
        bound = min(bound, now.previous_rewind - 1)
    before = sorted(step for step in now.restorable if step <= now.onset_step)
    if now.previous_rewind is not None:
        before = [step for step in before if step < now.previous_rewind]
        if not before:
            return (
                None,
                f"No checkpoint below step {now.previous_rewind}, where the last attempt went, can be restored.",
            )
    deep = [step for step in before if step <= bound]
    if deep:
        return deep[
            -1
        ], f"Rewind to {deep[-1]}, the newest checkpoint at least {now.onset_step - bound} steps before the onset."
    if before:
        return before[
            0
        ], f"Rewind to {before[0]}, the oldest checkpoint: none is {now.onset_step - bound} steps before the onset."
    return None, f"No checkpoint before the onset at step {now.onset_step} can be restored."
