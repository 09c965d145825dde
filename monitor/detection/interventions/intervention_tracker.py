"""Interventions through their life: proposed, ordered, applied, verified or recurred. At most one is active."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lossguard.states import InterventionState, OrderKind
from monitor.detection.effects import Effect, Intervention, InterventionChanged
from monitor.detection.incidents.states import INTERVENTION_TERMINAL, InterventionEvent, advance
from monitor.detection.interventions.policy import Decision, Policy

AWAITED = frozenset({InterventionState.PROPOSED, InterventionState.APPROVED, InterventionState.ORDERED})


@dataclass(slots=True)
class InterventionTracker:
    """The active intervention, the last one at its site, and what the run has spent."""

    made: int = 0
    spent: int = 0
    active: Intervention | None = None
    last: Intervention | None = None
    """The last rollback that failed or recurred: the next one near it is a further attempt."""

    def awaited(self) -> bool:
        """Something was decided and has not happened yet, or the trainer is held."""
        active = self.active
        return active is not None and (active.state in AWAITED or active.kind is OrderKind.HOLD)

    def on_trial(self) -> Intervention | None:
        """The rollback whose outcome is open."""
        active = self.active
        if active is None or active.kind is not OrderKind.ROLLBACK:
            return None
        return active if active.state is InterventionState.APPLIED else None

    def attempt(self, onset_step: int) -> tuple[int, int | None]:
        """(number of the next attempt at the site of `onset_step`, where the one before went back to)."""
        previous = self.on_trial() or self.last
        if previous is None or previous.rewind_to is None or previous.verify_at is None:
            return 1, None
        if not previous.rewind_to <= onset_step <= previous.verify_at:
            return 1, None
        return previous.attempt + 1, previous.rewind_to

    def decide(
        self,
        decision: Decision,
        incident: int | None,
        step: int,
        attempt: int,
        verify_at: int,
        ask: bool,
        by_policy: bool = True,
    ) -> Effect:
        """Turn a decision (or a person's wish, which costs the run's budget nothing) into the active intervention."""
        assert decision.kind is not None
        self.made += 1
        self.active = Intervention(
            number=self.made,
            incident=incident,
            kind=decision.kind,
            state=InterventionState.PROPOSED,
            attempt=attempt,
            rewind_to=decision.rewind_to,
            skip_from=decision.skip_from,
            skip_to=decision.skip_to,
            lr_scale=decision.lr_scale,
            decided_step=step,
            verify_at=verify_at if decision.kind is OrderKind.ROLLBACK else None,
            reasons=list(decision.reasons),
        )
        return InterventionChanged(self.active) if ask else self.order(by_policy)

    def order(self, by_policy: bool = True) -> Effect:
        """Proposed to ordered: only now a rollback of the policy's own is spent."""
        self.step(InterventionEvent.APPROVE)
        effect = self.step(InterventionEvent.ORDER)
        assert self.active is not None
        self.spent += by_policy and self.active.kind is OrderKind.ROLLBACK
        return effect

    def step(self, event: InterventionEvent, reason: str | None = None, **changes: Any) -> Effect:
        """Advance the active intervention; a terminal one is active no longer."""
        assert self.active is not None
        state = advance(self.active.state, event)
        reasons = self.active.reasons if reason is None else [*self.active.reasons, reason]
        self.active = changed = replace(self.active, state=state, reasons=reasons, **changes)
        if state in INTERVENTION_TERMINAL:
            if state in (InterventionState.RECURRED, InterventionState.FAILED):
                self.last = changed
            self.active = None
        return InterventionChanged(changed)

    def correct(self, **changes: Any) -> Effect:
        """What the trainer really did, where it differs from the order."""
        assert self.active is not None
        self.active = replace(self.active, **changes)
        return InterventionChanged(self.active)

    def settled(self, number: int) -> None:
        """Nothing to do when this intervention is over; ValueError when there never was such a one."""
        if not 1 <= number <= self.made:
            raise ValueError(f"there is no intervention {number}")

    def pick(self, number: int) -> Intervention:
        """The active intervention, which must be this one; ValueError otherwise."""
        if self.active is None or self.active.number != number:
            raise ValueError(f"intervention {number} is not active")
        return self.active

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "InterventionTracker":
        return cls(**data | {name: intervention_from(data[name]) for name in ("active", "last")})


def intervention_from(data: dict[str, Any] | None) -> Intervention | None:
    if data is None:
        return None
    return Intervention(**data | {"kind": OrderKind(data["kind"]), "state": InterventionState(data["state"])})


def persons_decision(rewind_to: int, skip_from: int, skip_to: int, reason: str) -> Decision:
    words = [reason or "A person asked for it."]
    return Decision(OrderKind.ROLLBACK, rewind_to, skip_from, skip_to, None, words)


def newest(restorable: Sequence[int], at_most: int) -> int:
    """The newest restorable step <= `at_most`; ValueError when there is none."""
    fits = [step for step in restorable if step <= at_most]
    if not fits:
        raise ValueError(f"no checkpoint at or before step {at_most} can be restored")
    return max(fits)


def verification(policy: Policy, last_out: int, rewind_to: int | None) -> int:
    """The step at which a rollback counts as verified: past the trouble by `verify_steps`."""
    return max(last_out, rewind_to or 0) + policy.verify_steps
