"""Interventions through their life: proposed, ordered, applied, verified or recurred. At most one is active."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lossguard.states import InterventionState, OrderKind
from monitor.detection.effects import Effect, Intervention, InterventionChanged
from monitor.detection.encoding import known_fields, restore
from monitor.detection.incidents.states import INTERVENTION_TERMINAL, InterventionEvent, advance
from monitor.detection.interventions.policy import Decision, Policy

UNDER_WAY = frozenset({InterventionState.APPROVED, InterventionState.ORDERED})
NOT_APPLIED = UNDER_WAY | {InterventionState.PROPOSED}
UNSUCCESSFUL = frozenset({InterventionState.RECURRED, InterventionState.FAILED})


@dataclass(slots=True)
class InterventionTracker:
    """The active intervention, the last unsuccessful one, and how many rollbacks the run has used."""

    num_interventions: int = 0
    rollbacks_used: int = 0
    """Rollbacks by the policy that were ordered."""
    active: Intervention | None = None
    last_unsuccessful: Intervention | None = None
    """The last rollback that failed or recurred: the next one near it is a further attempt."""

    def blocks_decisions(self) -> bool:
        """An intervention has not been applied yet, or the trainer is held."""
        active = self.active
        return active is not None and (active.state in NOT_APPLIED or active.kind is OrderKind.HOLD)

    def is_ordered(self) -> bool:
        """An order is on its way: whatever happens on this segment belongs to its incident."""
        return self.active is not None and self.active.state in UNDER_WAY

    def is_held(self) -> bool:
        """The trainer has stopped and waits for an operator."""
        active = self.active
        return active is not None and active.kind is OrderKind.HOLD and active.state is InterventionState.APPLIED

    def under_verification(self) -> Intervention | None:
        """The rollback that was applied and is not verified yet."""
        active = self.active
        if active is None or active.kind is not OrderKind.ROLLBACK:
            return None
        return active if active.state is InterventionState.APPLIED else None

    def next_attempt(self, onset_step: int) -> tuple[int, int | None]:
        """(number of the next attempt at the site of `onset_step`, the step that the previous one went back to)."""
        previous = self.under_verification() or self.last_unsuccessful
        if previous is None or previous.rewind_to is None or previous.verify_at is None:
            return 1, None
        if not previous.rewind_to <= onset_step <= previous.verify_at:
            return 1, None
        return previous.attempt + 1, previous.rewind_to

    def propose(
        self, decision: Decision, *, incident: int | None, step: int, attempt: int = 1, verify_at: int = 0
    ) -> Effect:
        """Make a decision the active intervention."""
        assert decision.kind is not None
        self.num_interventions += 1
        self.active = Intervention(
            number=self.num_interventions,
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
        return InterventionChanged(self.active)

    def order(self, *, by_policy: bool = True) -> Effect:
        """Order the proposed intervention; only now a rollback by the policy uses up some of the run's budget."""
        self.advance(InterventionEvent.APPROVE)
        effect = self.advance(InterventionEvent.ORDER)
        assert self.active is not None
        self.rollbacks_used += by_policy and self.active.kind is OrderKind.ROLLBACK
        return effect

    def advance(self, event: InterventionEvent, reason: str | None = None, **changes: Any) -> Effect:
        """Advance the active intervention; in a terminal state it is no longer active."""
        assert self.active is not None
        state = advance(self.active.state, event)
        reasons = self.active.reasons if reason is None else [*self.active.reasons, reason]
        self.active = changed = replace(self.active, state=state, reasons=reasons, **changes)
        if state in INTERVENTION_TERMINAL:
            if state in UNSUCCESSFUL:
                self.last_unsuccessful = self.active
            self.active = None
        return InterventionChanged(changed)

    def correct(self, **changes: Any) -> Effect:
        """Record what the trainer really did, where it differs from the order."""
        assert self.active is not None
        self.active = replace(self.active, **changes)
        return InterventionChanged(self.active)

    def check_number(self, number: int) -> None:
        """Raises ValueError when there never was such an intervention."""
        if not 1 <= number <= self.num_interventions:
            raise ValueError(f"there is no intervention {number}")

    def require_active(self, number: int) -> None:
        """Raises ValueError when this intervention is not the active one."""
        if self.active is None or self.active.number != number:
            raise ValueError(f"intervention {number} is not active")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "InterventionTracker":
        """What of the data can be read; the rest is as in a new run."""
        interventions = {
            name: restore(_intervention_from_dict, data.get(name)) for name in ("active", "last_unsuccessful")
        }
        return cls(**known_fields(cls, data) | interventions)


def _intervention_from_dict(data: dict[str, Any]) -> Intervention:
    enums = {"kind": OrderKind(data["kind"]), "state": InterventionState(data["state"])}
    return Intervention(**known_fields(Intervention, data) | enums)


def operator_decision(rewind_to: int, skip_from: int, skip_to: int, reason: str) -> Decision:
    return Decision(OrderKind.ROLLBACK, rewind_to, skip_from, skip_to, None, [reason or "Requested by an operator."])


def newest_restorable(restorable: Sequence[int], at_most: int) -> int:
    """The newest restorable step <= `at_most`. Raises ValueError when there is none."""
    suitable = [step for step in restorable if step <= at_most]
    if not suitable:
        raise ValueError(f"no checkpoint at or before step {at_most} can be restored")
    return max(suitable)


def verification_step(policy: Policy, last_step_out_of_band: int, rewind_to: int | None) -> int:
    """The step at which a rollback counts as verified: `verify_steps` past the incident."""
    return max(last_step_out_of_band, rewind_to or 0) + policy.verify_steps
