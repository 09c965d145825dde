"""The response to incidents: the policy decides, the trainer executes, operators overrule, rollbacks are verified."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.protocol import LEVEL_ACCEPTED
from lossguard.vocabulary.source_facts import EVERY_STEP, Clock, SourceFacts
from lossguard.vocabulary.states import IncidentKind, InterventionState, OrderKind, Outcome, Refusal, SegmentReason
from monitor.detection.effects import Effect, Intervention, InterventionEvent, Proposal
from monitor.detection.incidents.held_out import HeldOutIncidents
from monitor.detection.incidents.incident_tracker import IncidentTracker
from monitor.detection.incidents.open_incident import OpenIncident, Readings
from monitor.detection.incidents.replay_mismatch import Finding, ends_skips
from monitor.detection.incidents.throughput_incidents import ThroughputIncidents
from monitor.detection.interventions.decision import Attempt, Decision, Records, Situation
from monitor.detection.interventions.intervention_tracker import (
    NOT_APPLIED,
    InterventionTracker,
    describe_returned,
    describe_samples,
    newest_restorable,
    site_end,
    verification_step,
)
from monitor.detection.interventions.policies import decide
from monitor.detection.interventions.restorable import BatchIndex, RestorableStep, Tiers, restorable_steps, thinned
from monitor.detection.interventions.rules import after_refusal, with_limits
from monitor.detection.rows import Bools, Ints, Row, Rows
from monitor.detection.scoring.detectors import DetectorSet
from monitor.detection.scoring.recomputed_steps import RecomputedSteps
from monitor.detection.scoring.scored_rows import IN_BAND_Z, RecentRows, ScoredRow
from monitor.detection.scoring.skip_effect import RepeatedSamples
from monitor.detection.settings import DetectionSettings, Mode, Policy
from monitor.detection.throughput.durations import StepTimes

WOULD: Mapping[OrderKind, str] = {
    OrderKind.ROLLBACK: ": the policy would roll back.",
    OrderKind.HOLD: ": the policy would hold the run.",
}
"""Words with which an incident says what the policy would do about it."""
ACCEPTED = "An operator accepted the level of the loss: it is the new normal."
SAMPLES_RETURNED = "Skipped samples were trained again."
STRUCTURAL_ATTEMPTS = 2  # rollbacks that did not stop a slow rise
SAVE_A_CHECKPOINT = "Only an advisory signal is out of band: save a checkpoint now."
BEHIND_STEPS = 100  # that an incident must last while the trainer is far ahead: it would go back by all of them
VERIFIED_ROWS = 3  # rows up to the end of a verification whose loss must be in band


class IncidentResponse:
    """The state of a run's detection, and what is done about its incidents."""

    def __init__(
        self,
        settings: DetectionSettings | None = None,
        policy: Policy | None = None,
        *,
        can_roll_back: bool = True,
        can_skip: bool = True,
        remedies: Sequence[str] = (),
        can_scale_lr: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """`can_skip`: whether the run can leave batches out; `remedies`: the names of those that its loop has
        registered; `can_scale_lr`: whether it says that it scales its learning rate; `limits`: what its trainer carries
        out at most."""
        self.settings, self.remedies, self.limits = settings or DetectionSettings(), remedies, limits or Limits()
        self._configured, self._obeys, self._may_skip = policy or Policy(), can_roll_back, can_skip
        self._can_scale_lr = can_scale_lr
        self.source = EVERY_STEP
        self.detectors = DetectorSet(self.settings)
        self.last_step = -1
        self.recomputed = RecomputedSteps()
        self.throughput = ThroughputIncidents()
        self.held_out = HeldOutIncidents()
        self.incidents = IncidentTracker(self.settings)
        self.interventions = InterventionTracker()
        self.data_repeats = True
        self.batches = BatchIndex()
        self.step_times = StepTimes()
        self.restorable: list[RestorableStep] = []
        self.is_behind = False
        """Newer rows are on their way: what recovers in them needs no order. No part of the state."""
        self.records = Records()
        """Counts of the arms that were tried in this project; no part of the state."""

    @property
    def policy(self) -> Policy:
        """Policy at the pace of the rows, and within the limits of the trainer."""
        return self._configured.paced(self.source.stride).within(self.limits)

    @property
    def can_roll_back(self) -> bool:
        """True if the run executes orders, and its steps are those of its checkpoints."""
        return self._obeys and self.source.clock is Clock.STEPS

    @property
    def can_skip(self) -> bool:
        """True if the run can and may leave batches out, and a batch index stands for the same samples again."""
        return self._may_skip and self.data_repeats and self.limits.max_skip != 0

    def set_policy(self, policy: Policy) -> None:
        """Set the policy from the next decision on."""
        self._configured = policy

    def set_source(self, facts: SourceFacts) -> None:
        """Set how the next rows are made."""
        self.detectors.set_source(facts)
        self.source = self.incidents.source = facts

    def set_restorable(self, steps: Iterable[int], tiers: Tiers | None = None) -> None:
        """Set the complete list of steps that can be restored now; `tiers`: where each of them is kept, if known."""
        self.restorable = restorable_steps(thinned(sorted(map(int, steps))), tiers)

    # Rows

    def read(self, rows: Rows) -> None:
        """Read what the signals do not show: which batches the steps used, and how long they took."""
        self.batches.update(rows)
        self.step_times.update(rows)

    def read_row(self, row: Row) -> None:
        """Take in one row."""
        self.batches.read_row(row)
        self.step_times.read_row(row)

    def is_notable(self, scored: ScoredRow) -> bool:
        """True if a row needs a closer look: see `next_row`."""
        if (
            scored.is_alarm
            or self.incidents.needs_every_row()
            or self.incidents.is_plateau(scored.row.step, scored.readings)
        ):
            return True
        rollback = self.interventions.under_verification()
        return rollback is not None and rollback.verify_at is not None and scored.row.step >= rollback.verify_at

    def next_row(self, notable: Bools, steps: Ints, k: int) -> int:
        """The next row, from k on, that needs a closer look: an alarm, or the end of a verification."""
        if self.incidents.needs_every_row():
            return k
        ahead = np.flatnonzero(notable[k:])
        row = k + int(ahead[0]) if len(ahead) else len(steps)
        rollback = self.interventions.under_verification()
        if rollback is not None and rollback.verify_at is not None:
            row = min(row, max(k, int(np.searchsorted(steps, rollback.verify_at))))
        return row

    def observe(
        self, step: int, readings: Readings, recent: RecentRows, first_skipped: int | None = None
    ) -> list[Effect]:
        """Take in a row that needs a closer look. `first_skipped`: see `IncidentTracker.observe`."""
        effects = self.incidents.report_plateau(step, readings)
        if self.incidents.open is not None and not self.interventions.is_ordered():
            end = self.incidents.superseded(readings, first_skipped)
            effects += [] if end is None else self._close(*end, superseded=True)
        effects += self.incidents.observe(step, readings, recent, first_skipped)
        effects += self._decide(step)
        current = self.incidents.open
        if current is not None and current.is_over(self.settings) and not self.interventions.is_ordered():
            effects += self._close(*current.outcome(readings))
        return effects + self._verify(step, recent)

    def _close(self, outcome: Outcome, reason: str, *, superseded: bool = False) -> list[Effect]:
        """End the open incident, and withdraw what is only proposed for it."""
        effects: list[Effect] = []
        active = self.interventions.active
        if active is not None and active.state is InterventionState.PROPOSED:
            text = f"The incident ended before an operator decided. {reason}"
            effects.append(self.interventions.advance(InterventionEvent.WITHDRAW, text))
        return [*effects, self.incidents.close(outcome, reason, superseded=superseded)]

    # Decisions of the policy

    def _decide(self, step: int) -> list[Effect]:
        current = self.incidents.open
        if current is None or current.no_further_action or self.interventions.blocks_decisions():
            return []
        if current.incident.kind is IncidentKind.EARLY_WARNING:
            return self.incidents.wait([SAVE_A_CHECKPOINT], "Nothing was done: this signal only warns.")
        if self.is_behind and step - current.incident.detected_step < BEHIND_STEPS:
            return []
        current.renew_patience(step, self.policy.patience)
        attempts = self.interventions.attempts_at(current.first_onset_step, current.incident.detected_step)
        now = self._situation(current, step, attempts)
        if current.awaits_comparison:  # a value that was not finite at the last row still needs its answer
            current.awaits_comparison = False
            now = replace(now, non_finite=now.non_finite or now.kind is IncidentKind.NONFINITE)
        effects = self._mark_structural(current, now)
        now = replace(now, structural=current.structural)
        decision = decide(self.policy, now, self.batches.batch_of)
        decision = with_limits(decision, self.limits, now, self.restorable, self.policy)
        kind = decision.kind or decision.unavailable
        if (kind is not None or decision.is_final) and self._awaits_comparison(now):
            current.awaits_comparison = True
            return effects
        if decision.is_final:
            current.no_further_action, current.wait_reasons = True, []
            return [*effects, *self._end_previous(now), self.incidents.add_reason(" ".join(decision.reasons))]
        if kind is None:
            return effects + self.incidents.wait(decision.reasons, decision.afterwards)
        current.wait_reasons = []
        if decision.kind is None or self.policy.mode is Mode.OBSERVE:
            current.no_further_action = True
            proposal = Proposal(kind, step, decision.rewind_to, decision.skip_from, decision.skip_to)
            why = "Observe mode" if self.can_roll_back else "This run only reports and cannot roll back"
            text = " ".join([f"{why}{WOULD[kind]}", *decision.reasons])
            return [*effects, *self._end_previous(now), self.incidents.note_proposal(proposal, text)]
        return effects + self._end_previous(now) + self._propose(decision, current, now)

    def _mark_structural(self, current: OpenIncident, now: Situation) -> list[Effect]:
        """A slow rise that no checkpoint lies before, or that rollbacks did not stop, lies in the recipe."""
        if current.structural or now.kind is not IncidentKind.DIVERGENCE:
            return []
        if now.attempt > STRUCTURAL_ATTEMPTS:
            why = f"{STRUCTURAL_ATTEMPTS} rollbacks did not stop it"
        elif self.can_roll_back and not any(each.step <= now.onset_step for each in self.restorable):
            why = "it began before every step that can be restored"
        else:
            return []
        current.structural = True
        return [self.incidents.add_reason(f"The rise is structural: {why}. Its cause is the recipe, not a batch.")]

    def _propose(self, decision: Decision, current: OpenIncident, now: Situation) -> list[Effect]:
        """Make a decision about the open incident the active intervention, and order it in auto mode."""
        last_step = max(now.step, current.last_step_out_of_band)
        verify_at = verification_step(self.policy, last_step, decision.rewind_to)
        proposed = self.interventions.propose(
            decision,
            incident=current.incident.number,
            step=now.step,
            attempt=now.attempt,
            verify_at=verify_at,
            site_start=now.onset_step,
            site_end=site_end(now.onset_step, now.step, verify_at, now.kind),
            mode=self.policy.mode.value,
        )
        if self.policy.mode is Mode.APPROVE:
            return [proposed]
        return [replace(self.interventions.order(), choices=proposed.choices), *self.incidents.treat()]

    def _situation(self, current: OpenIncident, step: int, attempts: Sequence[Attempt]) -> Situation:
        return Situation(
            kind=current.incident.kind,
            onset_step=min(current.first_onset_step, current.incident.onset_step),
            detected_step=current.incident.detected_step,
            step=step,
            non_finite=current.non_finite,
            loss_finite=not current.loss_non_finite,
            norm_first=current.norm_first,
            sure=current.sure,
            loss_moved=current.loss_moved,
            expected=current.incident.expected,
            scale=current.incident.scale,
            peak_excess=current.peak_excess,
            excess=current.lasting_excess(),
            check_excess=current.check_excess,
            check_step=current.check_step,
            rising_rows=current.rising_rows,
            falls=current.falls,
            rises=current.rises,
            lasting_probability=current.lasting_probability(self.incidents.recoveries),
            others_recovered=bool(self.incidents.recoveries),
            attempts=attempts,
            rollbacks_used=self.interventions.rollbacks_used,
            hard_sites=self.interventions.hard_sites,
            easy_sites=self.interventions.easy_sites,
            restorable=[each for each in self.restorable if self.limits.too_deep(step, each.step) is None],
            step_seconds=self.step_times.median(),
            can_roll_back=self.can_roll_back,
            can_skip=self.can_skip,
            data_repeats=self.data_repeats,
            structural=current.structural,
            signals=current.alarmed_signals,
            remedies=self.remedies,
            records=self.records,
        )

    def _verify(self, step: int, recent: RecentRows) -> list[Effect]:
        """The rollback under verification worked when its step is reached with the loss in band."""
        rollback = self.interventions.under_verification()
        if rollback is None or rollback.verify_at is None or step < rollback.verify_at:
            return []
        if self.incidents.is_disturbed() or (recent.z["loss"][-VERIFIED_ROWS:] >= IN_BAND_Z).any():
            return []
        return self._verified(f"The run reached step {step} without a recurrence, with the loss in its band")

    def _awaits_comparison(self, now: Situation) -> bool:
        """True if the trainer may say with the next row that a skipped sample caused this: then no rollback has worked.

        It compares the samples of a step after the step.
        """
        rollback = self.interventions.under_verification()
        if rollback is None or rollback.skip_from is None or not rollback.compared:
            return False
        return not now.attempts and now.step == now.detected_step

    def _end_previous(self, now: Situation) -> list[Effect]:
        """The rollback under verification, if there is one, did not work; or it did, and this is another incident."""
        if self.interventions.under_verification() is None:
            if not now.attempts:
                self.interventions.forget_site()
            return []
        if now.attempts:
            return self._recur(
                f"The incident recurred by step {now.step}.", "The incident recurred after the rollback."
            )
        return self._verified(f"The run got past the incident; another one began at step {now.onset_step}")

    def _verified(self, reason: str) -> list[Effect]:
        """`reason`: a sentence without its full stop."""
        rollback = self.interventions.under_verification()
        assert rollback is not None
        effects = [self.interventions.verify(reason + describe_samples(rollback))]
        return effects + self.incidents.end_verification(Outcome.RECOVERED, "The rollback is verified.")

    # Skipped samples

    def report_mismatch(self, finding: Finding) -> list[Effect]:
        """Report that recomputed steps, or the trainer's comparison of samples, show a faulty restore."""
        effects: list[Effect] = []
        if isinstance(finding, RepeatedSamples):
            effects += self._recur(SAMPLES_RETURNED, SAMPLES_RETURNED)
        effects += self.incidents.report_mismatch(finding)
        if not ends_skips(finding):
            return effects
        self.data_repeats = False  # no batch is skipped from now on, not even by what waits for approval
        active = self.interventions.active
        if active is not None and active.state is InterventionState.PROPOSED and active.skip_from is not None:
            why = "The data of this run does not repeat."
            effects.append(self.interventions.advance(InterventionEvent.WITHDRAW, why))
        return effects

    def sample_returned(self, details: Mapping[str, Any]) -> list[Effect]:
        """The trainer has trained again on a sample that a rollback skipped: the one under verification did not work.

        `intervention` in the details is that rollback; without it, the one under verification is meant.
        """
        rollback, number = self.interventions.under_verification(), details.get("intervention")
        if rollback is None or rollback.skip_from is None:
            return []
        at_site = [each.number for each in (rollback, *self.interventions.unsuccessful)]
        if number is not None and number not in at_site:
            return []
        return self._recur(describe_returned(details), SAMPLES_RETURNED)

    def _recur(self, reason: str, incident_reason: str) -> list[Effect]:
        """The rollback under verification, if there is one, did not work."""
        if self.interventions.under_verification() is None:
            return []
        effects = [self.interventions.advance(InterventionEvent.RECUR, reason)]
        return effects + self.incidents.end_verification(Outcome.ONGOING, incident_reason)

    # Actions of the trainer

    def order_applied(
        self,
        number: int,
        *,
        rewound_to: int | None,
        skip_from: int | None,
        skip_to: int | None,
        compared: bool | None = None,
    ) -> list[Effect]:
        """The trainer executed intervention `number`; reported twice, the second time only corrects the figures."""
        active = self.interventions.active
        if active is None or active.number != number:
            if not 1 <= number <= self.interventions.num_interventions:
                raise ValueError(f"there is no intervention {number}")
            return []
        if active.kind is OrderKind.RELEASE:
            events = (InterventionEvent.APPLY, InterventionEvent.VERIFY)
            return [self.interventions.advance(event) for event in events]
        repeated = active.state is InterventionState.APPLIED
        if active.kind is OrderKind.HOLD:
            return [] if repeated else [self.interventions.advance(InterventionEvent.APPLY)]
        figures: dict[str, Any] = {
            "rewind_to": active.rewind_to if rewound_to is None else rewound_to,
            "skip_from": active.skip_from if skip_from is None else skip_from,
            "skip_to": active.skip_to if skip_to is None else skip_to,
            "compared": active.compared if compared is None else compared,
        }
        if repeated:
            return [self.interventions.correct(**figures)]
        current = self.incidents.open
        last_step = 0 if current is None else current.last_step_out_of_band
        verify_at = max(active.verify_at or 0, verification_step(self.policy, last_step, rewound_to))
        effects = [self.interventions.advance(InterventionEvent.APPLY, verify_at=verify_at, **figures)]
        return effects + self.incidents.begin_verification()

    def order_failed(self, number: int, detail: str, refusal: Refusal | None = None) -> list[Effect]:
        """Take in that the trainer could not execute intervention `number`; `refusal`: it would not."""
        self.interventions.require_active(number)
        refused = self.interventions.active
        assert refused is not None
        verb = "could not execute it" if refusal is None else "refused it"
        why = f"The trainer {verb}: {detail}"
        failed = self.interventions.advance(InterventionEvent.FAIL, why, refused=refusal is not None)
        return [failed, *self.incidents.relapse(), *self._after_refusal(refused, refusal, detail)]

    def _after_refusal(self, refused: Intervention, refusal: Refusal | None, detail: str) -> list[Effect]:
        """Do not repeat for the open incident what the trainer would refuse again."""
        current = self.incidents.open
        decision = None if current is None else after_refusal(self.policy, refused, refusal, detail)
        if current is None or decision is None:
            return []
        if decision.kind is None:
            current.no_further_action, current.wait_reasons = True, []
            return [self.incidents.add_reason(" ".join(decision.reasons))]
        proposed = self.interventions.propose(
            decision,
            incident=refused.incident,
            step=refused.decided_step,
            attempt=refused.attempt,
            verify_at=refused.verify_at or 0,
            site_start=refused.site_start,
            site_end=refused.site_end,
        )
        if refusal is Refusal.APPROVAL or self.policy.mode is Mode.APPROVE:
            return [proposed]
        return [self.interventions.order(), *self.incidents.treat()]

    def begin_segment(self, step: int, reason: str, obeyed: int | None) -> list[Effect]:
        """A new segment begins at `step`: it executes the intervention `obeyed`, or none."""
        self.batches.rewind(step)
        self.step_times.rewind()
        self.incidents.pending_outlier = None
        effects: list[Effect] = []
        if self.interventions.is_ordered() and not self._obeys:
            why = "The run goes on without a guard, so nobody executes it."
            effects += [self.interventions.advance(InterventionEvent.WITHDRAW, why), *self.incidents.relapse()]
        active = self.interventions.active
        if active is None or not self.interventions.is_ordered():
            resumed = reason == SegmentReason.RESUME
            reason = "The run was restarted." if resumed else "The loop went back without an order."
            return effects + self._leave_segment(step, reason)
        if active.kind is OrderKind.ROLLBACK and active.number == obeyed:
            return self.order_applied(
                active.number, rewound_to=step, skip_from=active.skip_from, skip_to=active.skip_to
            )
        if self.incidents.open is not None:  # it stays open: the trainer may still obey
            self.incidents.open.check_step = min(self.incidents.open.check_step, step)
        return []

    def taken_over(self, reason: str) -> list[Effect]:
        """Another process leads the run: what was decided about the rows of the last one is not carried out by it.

        Its own rows are judged anew.
        """
        effects: list[Effect] = []
        active = self.interventions.active
        if active is not None and active.state in NOT_APPLIED:
            effects.append(self.interventions.advance(InterventionEvent.WITHDRAW, reason))
        return effects if self.incidents.open is None else [*effects, self.incidents.close(Outcome.ONGOING, reason)]

    def _leave_segment(self, step: int, reason: str) -> list[Effect]:
        """End the hold and the incident of a segment that ended without an order."""
        effects: list[Effect] = []
        if self.interventions.is_held():
            effects.append(self.interventions.advance(InterventionEvent.WITHDRAW, reason))
        current = self.incidents.open
        if current is None or (current.loss_moved and current.incident.onset_step < step):
            return effects  # it goes on: the new segment began in the middle of it
        return effects + self._close(Outcome.ONGOING, reason)

    # Decisions of an operator

    def approve(self, number: int) -> list[Effect]:
        """Raises ValueError when intervention `number` does not wait for a decision; so does `reject`."""
        self.interventions.require_active(number)
        return [self.interventions.order(), *self.incidents.treat()]

    def reject(self, number: int) -> list[Effect]:
        self.interventions.require_active(number)
        effects: list[Effect] = [self.interventions.advance(InterventionEvent.REJECT, "An operator rejected it.")]
        self._settle()
        return effects

    def accept_level(self, reason: str = "") -> list[Effect]:
        """An operator says that the present level of the loss is normal: it is learnt before the next row.

        The caller stores it as an event LEVEL_ACCEPTED of the next step, so that whoever reads the rows again knows it.
        Raises ValueError when no incident of the loss is open, or when an order for it is under way.
        """
        current = self.incidents.open
        if current is None or current.incident.signal != "loss" or current.non_finite:
            raise ValueError("no incident of the loss level is open")
        if self.interventions.is_ordered() or self.interventions.is_held():
            raise ValueError("an order for this incident is under way, or the run is held: release it first")
        self.detectors.declare(self.last_step + 1, LEVEL_ACCEPTED)
        return self._close(Outcome.ONGOING, f"{ACCEPTED} {reason}".strip())

    def accept_replay(self, reason: str = "") -> list[Effect]:
        """An operator says that the difference of a replay is normal for this run: it counts as measured from now on.

        So does its data: batches may be skipped again, also where a rewind has ended the incident. Raises ValueError
        when no replay mismatch is open and the data repeats.
        """
        if self.incidents.mismatch is None and not self.data_repeats:
            self.data_repeats = True
            return []
        text = "An operator accepted the difference: it counts as this run's replay scatter from now on."
        effects = self.incidents.close_mismatch(Outcome.ONGOING, f"{text} {reason}".strip())
        self.recomputed.accept()
        self.data_repeats = True
        return effects

    def _settle(self) -> None:
        """An operator decided about the open incident: the policy does nothing more about it."""
        self.detectors.answer()
        if self.incidents.open is not None:
            self.incidents.open.no_further_action = True

    def _check_obeys(self, what: str) -> None:
        """Raises ValueError unless the trainer carries out an operator's order."""
        if not self.can_roll_back:
            raise ValueError(f"this run only reports: it cannot {what}")
        if self.limits.mode is Mode.OBSERVE:
            raise ValueError("the trainer of this run carries out no orders now (mode=observe)")

    def hold(self, reason: str = "") -> list[Effect]:
        """An operator stops the run at the next step boundary. Raises ValueError when it cannot be held, or is."""
        self._check_obeys("be held")
        active = self.interventions.active
        if active is not None and active.kind is OrderKind.HOLD and active.state is not InterventionState.PROPOSED:
            raise ValueError("the run is held, or about to be")
        incident = None if self.incidents.open is None else self.incidents.open.incident.number
        effects = self._replace_active()
        decision = Decision(OrderKind.HOLD, reasons=[reason or "An operator holds the run."])
        self.interventions.propose(decision, incident=incident, step=self.last_step)
        return [*effects, self.interventions.order(by_policy=False), *self.incidents.treat()]

    def rollback(
        self,
        *,
        rewind_to: int | None = None,
        skip_from: int | None = None,
        skip_to: int | None = None,
        lr_scale: float | None = None,
        remedies: Sequence[str] = (),
        reason: str = "",
    ) -> list[Effect]:
        """An operator's order. Raises ValueError when the run cannot carry it out, or no checkpoint fits."""
        step, remedies = self.last_step, tuple(dict.fromkeys(remedies))
        self._check_obeys("roll back")
        self._check_changes(lr_scale, remedies)
        incident = None if self.incidents.open is None else self.incidents.open.incident
        onset = step if incident is None else incident.onset_step
        steps = [each.step for each in self.restorable]
        oldest = min(steps, default=0)
        at_most = max(onset - self.policy.min_depth, oldest) if rewind_to is None else rewind_to
        target = newest_restorable(steps, at_most)
        begin, end = self._skip(target, skip_from, skip_to)
        problem = self.limits.too_deep(step, target) or self.limits.too_wide(end - begin)
        if (problem := problem or self.limits.bars_lr_scale(lr_scale)) is not None:
            raise ValueError(f"the trainer would refuse this: {problem}")
        attempts = [] if incident is None else self.interventions.attempts_at(onset, incident.detected_step)
        effects = self._replace_active()
        skip, reasons = (begin, end) if self.can_skip else (None, None), [reason or "Requested by an operator."]
        self.interventions.propose(
            Decision(OrderKind.ROLLBACK, target, skip[0], skip[1], lr_scale, reasons, remedies=remedies),
            incident=None if incident is None else incident.number,
            step=step,
            attempt=attempts[-1].number + 1 if attempts else 1,
            verify_at=verification_step(self.policy, step, target),
            site_start=None if incident is None else onset,
        )
        return [*effects, self.interventions.order(by_policy=False), *self.incidents.treat()]

    def _check_changes(self, lr_scale: float | None, remedies: Sequence[str]) -> None:
        """Raises ValueError for a change of the training that this run has not announced."""
        if unknown := [name for name in remedies if name not in self.remedies]:
            known = f"its remedies are {', '.join(self.remedies)}" if self.remedies else "it has none"
            raise ValueError(f"this run has not registered the remedy {unknown[0]!r:.80}: {known}")
        if lr_scale is not None and not self._can_scale_lr:
            raise ValueError(
                "this run ignores lr_scale: its loop has not multiplied its learning rate by guard.lr_scale"
            )

    def _skip(self, target: int, skip_from: int | None, skip_to: int | None) -> tuple[int, int]:
        """The batches that an operator's rollback to the checkpoint `target` leaves out: [begin, end)."""
        first = self.batches.batch_of(target)
        begin = first if skip_from is None else skip_from
        if not self.can_skip and (skip_from, skip_to) != (None, None) and skip_to != begin:  # an empty range skips none
            if not self.data_repeats:
                why = "the data of this run does not repeat"
            elif self._may_skip:
                why = "the trainer skips no batch (max_skip=0)"
            else:
                why = "this run cannot leave batches out"
            raise ValueError(f"{why}: order the rollback without skip_from and skip_to")
        if begin < first:
            raise ValueError(f"skip_from ({begin}) must not be below the checkpoint's batch {first}")
        if not self.can_skip:
            return begin, begin
        end = begin + self.policy.skip_min if skip_to is None else skip_to
        if end < begin:
            what = "the checkpoint's batch" if skip_from is None else "skip_from"
            raise ValueError(f"skip_to ({end}) must not be below {what} {begin}")
        return begin, end

    def release(self, reason: str = "") -> list[Effect]:
        """An operator ends a hold. Raises ValueError when the run is not held."""
        active = self.interventions.active
        if active is None or active.kind is not OrderKind.HOLD:
            raise ValueError("the run is not held")
        event = InterventionEvent.RELEASE if self.interventions.is_held() else InterventionEvent.WITHDRAW
        effects = [self.interventions.advance(event, reason or None)]
        self.throughput.skip()
        self._settle()
        self.interventions.forget_site()
        decision = Decision(OrderKind.RELEASE, reasons=[reason or "An operator released the run."])
        self.interventions.propose(decision, incident=None, step=self.last_step)
        return [*effects, self.interventions.order()]

    def _replace_active(self) -> list[Effect]:
        """An operator's order replaces the active intervention, if there is one."""
        active = self.interventions.active
        if active is None:
            return []
        event = InterventionEvent.RELEASE if self.interventions.is_held() else InterventionEvent.WITHDRAW
        if self.interventions.under_verification() is not None:
            event = InterventionEvent.REPLACE
        if event is InterventionEvent.RELEASE:
            self.throughput.skip()
        effects = [self.interventions.advance(event, "An operator's order replaced it.")]
        return effects + self.incidents.end_verification(Outcome.ONGOING, "An operator's order replaced the rollback.")
