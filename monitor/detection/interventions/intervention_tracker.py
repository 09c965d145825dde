"""Interventions through their life: proposed, ordered, applied, verified or recurred. At most one is active."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.states import IncidentKind, InterventionState, OrderKind
from lossguard.vocabulary.wording import plural
from monitor.detection.effects import (
    INTERVENTION_TERMINAL,
    Effect,
    Intervention,
    InterventionChanged,
    InterventionEvent,
    advance,
)
from monitor.detection.encoding import load, restore_row
from monitor.detection.interventions.decision import Attempt, Decision
from monitor.detection.settings import Policy

UNDER_WAY = frozenset({InterventionState.APPROVED, InterventionState.ORDERED})
NOT_APPLIED = UNDER_WAY | {InterventionState.PROPOSED}
TAKEN_UP = UNDER_WAY | {InterventionState.APPLIED}
"""States of an intervention that goes on when the rest of the state was lost."""
UNSUCCESSFUL = frozenset({InterventionState.RECURRED, InterventionState.FAILED})
MIN_SITE_STEPS = 20
"""Steps from the first onset within which a further onset is a recurrence, however quickly the policy decided."""


@dataclass(slots=True)
class InterventionTracker:
    """The active intervention, the unsuccessful ones at its site, and how many rollbacks the run has used."""

    num_interventions: int = 0
    rollbacks_used: int = 0
    """Rollbacks by the policy that were ordered."""
    hard_sites: int = 0
    """Sites that are over, and at which a rollback had not helped."""
    easy_sites: int = 0
    """Sites that the first rollback got past."""
    active: Intervention | None = None
    unsuccessful: list[Intervention] = field(default_factory=list)
    """The rollbacks at the last site that failed or recurred, oldest first: the next one there is a further attempt."""

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

    def attempts_at(self, onset_step: int, detected_step: int) -> list[Attempt]:
        """The rollbacks that did not get past the site of this trouble, oldest first."""
        rollback = self.under_verification()
        earlier = self.unsuccessful if rollback is None else [*self.unsuccessful, rollback]
        if not earlier or not _is_same_site(earlier[-1], onset_step, detected_step):
            return []
        return [_attempt(each) for each in earlier if each.rewind_to is not None]

    def forget_site(self) -> None:
        """The run got past the last site, or an operator took over: the next rollback there is a first attempt."""
        self.hard_sites += any(each.state is InterventionState.RECURRED for each in self.unsuccessful)
        self.unsuccessful = []

    def verify(self, reason: str) -> Effect:
        """The rollback under verification got past its site."""
        self.easy_sites += not self.unsuccessful
        effect = self.advance(InterventionEvent.VERIFY, reason)
        self.forget_site()
        return effect

    def propose(
        self,
        decision: Decision,
        *,
        incident: int | None,
        step: int,
        attempt: int = 1,
        verify_at: int = 0,
        site_start: int | None = None,
        site_end: int | None = None,
        mode: str | None = None,
    ) -> InterventionChanged:
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
            site_start=site_start,
            site_end=site_end,
            remedies=list(decision.remedies),
            mode=mode,
        )
        return InterventionChanged(self.active, [each.to_dict() for each in decision.choices])

    def order(self, *, by_policy: bool = True) -> InterventionChanged:
        """Order the proposed intervention; only now a rollback by the policy uses up some of the run's budget."""
        self.advance(InterventionEvent.APPROVE)
        effect = self.advance(InterventionEvent.ORDER)
        assert self.active is not None
        self.rollbacks_used += by_policy and self.active.kind is OrderKind.ROLLBACK
        return effect

    def advance(self, event: InterventionEvent, reason: str | None = None, **changes: Any) -> InterventionChanged:
        """Advance the active intervention; in a terminal state it is no longer active."""
        assert self.active is not None
        state = advance(self.active.state, event)
        reasons = self.active.reasons if reason is None else [*self.active.reasons, reason]
        self.active = changed = replace(self.active, state=state, reasons=reasons, **changes)
        if state in INTERVENTION_TERMINAL:
            if state in UNSUCCESSFUL and changed.kind is OrderKind.ROLLBACK:
                self.unsuccessful.append(replace(changed, reasons=[]))  # the stored state stays small
            self.active = None
        return InterventionChanged(changed)

    def correct(self, **changes: Any) -> Effect:
        """Record what the trainer really did, where it differs from the order."""
        assert self.active is not None
        self.active = replace(self.active, **changes)
        return InterventionChanged(self.active)

    def note(self, reason: str) -> list[Effect]:
        """Add a reason to the rollback under verification, if there is one."""
        rollback = self.under_verification()
        return [] if rollback is None else [self.correct(reasons=[*rollback.reasons, reason])]

    def changes_updates(self, number: int | None) -> bool:
        """True if intervention `number` changes the updates, so that recomputed losses differ from their record.

        So do the remedies of the earlier attempts at its site: they are in effect from the restored step on.
        """
        active = self.active
        if active is None or active.number != number:
            return False
        return active.lr_scale is not None or any(each.remedies for each in (active, *self.unsuccessful))

    def skip_of(self, number: int | None) -> tuple[int, int] | None:
        """The batches [skip_from, skip_to) that intervention `number` skips, if it is active and skips any."""
        active = self.active
        if active is None or active.number != number or active.skip_from is None or active.skip_to is None:
            return None
        return active.skip_from, active.skip_to

    def require_active(self, number: int) -> None:
        """Raises ValueError when this intervention is not the active one."""
        if self.active is None or self.active.number != number:
            raise ValueError(f"intervention {number} is not active")

    def take_up(self, num_interventions: int, last: Mapping[str, Any] | None) -> int | None:
        """Go on where the state was lost: see `DetectionEngine.take_up`."""
        self.num_interventions = num_interventions
        self.active = restore_row(partial(load, Intervention), last)
        if self.active is not None and self.active.state not in TAKEN_UP:
            self.active = None
        return None if self.active is None else self.active.number


def _is_same_site(rollback: Intervention, onset_step: int, detected_step: int) -> bool:
    """True if this is the trouble that the rollback was to get past.

    Its onset may be dated back before the restored step; it was detected on rows after that step.
    """
    end = rollback.verify_at if rollback.site_end is None else rollback.site_end
    if rollback.rewind_to is None or end is None:
        return False
    return rollback.rewind_to <= detected_step and onset_step <= end


def _attempt(rollback: Intervention) -> Attempt:
    assert rollback.rewind_to is not None
    return Attempt(
        number=rollback.attempt,
        onset_step=rollback.decided_step if rollback.site_start is None else rollback.site_start,
        rewind_to=rollback.rewind_to,
        skip_from=rollback.skip_from,
        skip_to=rollback.skip_to,
        executed=rollback.state is not InterventionState.FAILED,
        remedies=tuple(rollback.remedies),
        refused=rollback.refused,
    )


def site_end(onset_step: int, decided_step: int, verify_at: int, kind: IncidentKind) -> int:
    """The last step at which a further onset is still the same trouble.

    The trouble showed within the steps from its onset to the decision; twice as many are enough for it to show again. A
    slow rise may take until the end of the verification.
    """
    if kind is IncidentKind.DIVERGENCE:
        return verify_at
    return min(verify_at, onset_step + max(MIN_SITE_STEPS, 2 * (decided_step - onset_step)))


def describe_samples(rollback: Intervention) -> str:
    """Return the end of a sentence about a verified rollback: what is known of the skipped samples."""
    if rollback.skip_from is None or rollback.skip_from == rollback.skip_to:
        return "."
    if rollback.compared:
        return ", and no skipped sample was trained again."
    return "; whether skipped samples came again was not compared."


def describe_returned(details: Mapping[str, Any]) -> str:
    """The reason why a rollback did not work, by the details of an event SKIPPED_SAMPLE_RETURNED."""
    given: list[Any] = [details.get(name) for name in ("step", "batch_index", "rows")]
    step, batch, rows = given
    where = f" at step {step}" if is_step(step) else ""
    how_many = f" ({plural(rows, 'row')} of batch {batch})" if is_step(rows) and is_step(batch) else ""
    return f"Skipped samples were trained again{where}{how_many}: the rollback did not leave them out."


def newest_restorable(restorable: Sequence[int], at_most: int) -> int:
    """The newest restorable step <= `at_most`. Raises ValueError when there is none."""
    suitable = [step for step in restorable if step <= at_most]
    if not suitable:
        raise ValueError(f"no checkpoint at or before step {at_most} can be restored")
    return max(suitable)


def verification_step(policy: Policy, last_step_out_of_band: int, rewind_to: int | None) -> int:
    """The step at which a rollback counts as verified: `verify_steps` past the incident."""
    return max(last_step_out_of_band, rewind_to or 0) + policy.verify_steps
