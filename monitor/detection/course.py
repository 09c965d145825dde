"""What happens row by row: incidents open, are followed and end; the policy decides; rollbacks are verified."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lossguard.states import IncidentState, InterventionState, Outcome
from monitor.detection.effects import Effect, Incident, IncidentChanged, Outlier
from monitor.detection.incidents.incident_tracker import IncidentTracker, begin, outcome_of, plateau, trigger
from monitor.detection.incidents.states import IncidentEvent, InterventionEvent, advance
from monitor.detection.interventions.batch_index import BatchIndex
from monitor.detection.interventions.intervention_tracker import InterventionTracker, verification
from monitor.detection.interventions.policy import Decision, Mode, Policy, Situation, palm
from monitor.detection.rows import Bools
from monitor.detection.scoring.detectors import DetectorSet, ScoredRows
from monitor.detection.scoring.readings import CALM_Z, Reading, Trail, foretold
from monitor.detection.settings import DetectionSettings


class Course:
    """The state of a watch and what a row does to it."""

    def __init__(
        self, settings: DetectionSettings | None = None, policy: Policy | None = None, *, can_roll_back: bool = True
    ) -> None:
        self.settings = settings or DetectionSettings()
        self.policy = policy or Policy()
        self.can_roll_back = can_roll_back
        self.bank = DetectorSet(self.settings)
        self.care = InterventionTracker()
        self.batches = BatchIndex()
        self.episode: IncidentTracker | None = None
        self.treated: Incident | None = None  # the incident behind the rollback that is on trial
        self.pending: Outlier | None = None  # a single row out of band, judged at the next row
        self.root: int | None = None  # the onset of the incident that the next one goes on from
        self.plateau_from = 0  # the lowest level that the last plateau advisory was about
        self.incidents = 0
        self.restorable: list[int] = []
        self.last_step = -1

    def _judge(self, judged: ScoredRows) -> list[Effect]:
        effects: list[Effect] = []
        steps, alarms = judged.rows.steps, judged.alarms() | self._stale(judged)
        k = -1
        while (k := self._next(alarms, steps, k + 1)) < len(steps):
            effects += self._row(int(steps[k]), judged.readings(k), judged.trail(k))
        self.last_step = int(steps[-1])
        return effects

    def _stale(self, judged: ScoredRows) -> Bools:
        """Rows so far from the lowest loss level that the plateau advisory is due."""
        loss = judged.scores.get("loss")
        if loss is None or self.settings.plateau_steps == 0:
            return np.zeros(len(judged.rows), dtype=bool)
        age = judged.rows.steps - loss.low_step
        return (age >= self.settings.plateau_steps) & (loss.low_step > self.plateau_from)

    def _advise(self, step: int, readings: Mapping[str, Reading]) -> list[Effect]:
        """Say once for each lowest level that the loss has stopped falling; nothing is done about it."""
        loss = readings.get("loss")
        if loss is None or self.settings.plateau_steps == 0 or loss.low_step <= self.plateau_from:
            return []
        if step - loss.low_step < self.settings.plateau_steps:
            return []
        self.plateau_from = loss.low_step
        self.incidents += 1
        return [IncidentChanged(plateau(self.incidents, step, loss))]

    def _next(self, alarms: Any, steps: Any, k: int) -> int:
        """The next row, from k on, that needs a closer look: an alarm, or the end of a verification."""
        if self.episode is not None or self.pending is not None:
            return k
        ahead = np.flatnonzero(alarms[k:])
        row = k + int(ahead[0]) if len(ahead) else len(steps)
        trial = self.care.on_trial()
        if trial is not None and trial.verify_at is not None:
            row = min(row, max(k, int(np.searchsorted(steps, trial.verify_at))))
        return row

    def _row(self, step: int, readings: Mapping[str, Reading], trail: Trail) -> list[Effect]:
        effects = self._advise(step, readings) + self._worse(readings)
        if self.episode is None:
            effects += self._open(step, readings, trail)
        elif self.episode.observe(step, readings):
            effects.append(IncidentChanged(self.episode.incident))
        effects += self._decide(step)
        if self.episode is not None and self.episode.over(self.settings) and not self._ordered():
            effects += self._close(*outcome_of(self.episode, readings))
        return effects + self._verify(step, trail)

    def _worse(self, readings: Mapping[str, Reading]) -> list[Effect]:
        """Something graver or new begins in the course of an incident: that one ends here and a new one begins."""
        if self.episode is None or self._ordered():
            return []
        if self.episode.relit(readings, self.settings):
            return self._close(Outcome.ONGOING, "It was not all the way back when the next trouble began.")
        reason = self.episode.outdone(readings)
        if reason is None:
            return []
        self.root = self.episode.root
        return self._close(Outcome.DIVERGED, reason)

    def _open(self, step: int, readings: Mapping[str, Reading], trail: Trail) -> list[Effect]:
        signal = trigger(readings)
        pending, self.pending = self.pending, None
        root, self.root = self.root, None
        if signal is None:
            effects: list[Effect] = [] if pending is None else [pending]
            signal = next((name for name, reading in readings.items() if reading.single >= 1.0), None)
            if signal is None:
                return effects
            if not foretold(signal, trail):
                self.pending = Outlier(step, signal, readings[signal].value, readings[signal].z)
                return effects
        self.incidents += 1
        self.episode = begin(self.incidents, step, signal, readings, trail)
        if root is not None:
            self.episode.root = root
        return [IncidentChanged(self.episode.incident)]

    # What to do about it

    def _ordered(self) -> bool:
        """An order is on its way: whatever happens on this segment belongs to its incident."""
        active = self.care.active
        return active is not None and active.state in (InterventionState.APPROVED, InterventionState.ORDERED)

    def _decide(self, step: int) -> list[Effect]:
        episode = self.episode
        if episode is None or episode.settled or self.care.awaited():
            return []
        episode.halve(step, self.policy.patience)
        attempt, previous = self.care.attempt(episode.root)
        decision = palm(self.policy, self._situation(episode, step, attempt, previous), self.batches.at)
        deed = decision.kind or decision.would
        if deed is None:
            return self._wait(decision)
        episode.waiting = []
        if decision.kind is None or self.policy.mode is Mode.OBSERVE:
            episode.settled = True
            why = "Observed only" if self.can_roll_back else "This run only reports and cannot roll back"
            words = " ".join([f"{why}; the policy would {deed.value}.", *decision.reasons])
            return [self._incident(reasons=[*episode.incident.reasons, words])]
        effects = self._recur(step)
        verify_at = verification(self.policy, max(step, episode.last_out), decision.rewind_to)
        ask = self.policy.mode is Mode.APPROVE
        effects.append(self.care.decide(decision, episode.incident.number, step, attempt, verify_at, ask))
        return effects if ask else [*effects, self._treat()]

    def _wait(self, decision: Decision) -> list[Effect]:
        """A decision to wait is told with its costs when the reason is a new one; the last one when all is over."""
        assert self.episode is not None
        before, self.episode.waiting = self.episode.waiting, [decision.reasons[0], decision.afterwards]
        if before[:1] == decision.reasons[:1]:
            return []
        return [self._incident(reasons=[*self.episode.incident.reasons, " ".join(decision.reasons)])]

    def _situation(self, episode: IncidentTracker, step: int, attempt: int, previous: int | None) -> Situation:
        return Situation(
            kind=episode.incident.kind,
            onset_step=min(episode.root, episode.incident.onset_step),
            detected_step=episode.incident.detected_step,
            step=step,
            broken=episode.broken,
            moved=episode.moved,
            excess=episode.excess,
            check_excess=episode.check_excess,
            check_step=episode.check_step,
            rising_rows=episode.rising_rows,
            falls=episode.falls,
            rises=episode.rises,
            attempt=attempt,
            spent=self.care.spent,
            previous_rewind=previous,
            restorable=self.restorable,
            can_roll_back=self.can_roll_back,
        )

    def _incident(self, **changes: Any) -> Effect:
        assert self.episode is not None
        self.episode.incident = replace(self.episode.incident, **changes)
        return IncidentChanged(self.episode.incident)

    def _treat(self) -> Effect:
        assert self.episode is not None
        return self._incident(state=advance(self.episode.incident.state, IncidentEvent.TREAT))

    def _relapse(self) -> list[Effect]:
        """The order came to nothing: the incident is on its own again."""
        if self.episode is None or self.episode.incident.state is not IncidentState.TREATED:
            return []
        return [self._incident(state=advance(self.episode.incident.state, IncidentEvent.RELAPSE))]

    def _close(self, outcome: Outcome, reason: str) -> list[Effect]:
        assert self.episode is not None
        effects: list[Effect] = []
        active = self.care.active
        if active is not None and active.state is InterventionState.PROPOSED:
            effects.append(self.care.step(InterventionEvent.WITHDRAW, f"Its incident ended without it. {reason}"))
        if self.episode.waiting:
            self._incident(reasons=[*self.episode.incident.reasons, self.episode.waiting[-1]])
        effects.append(IncidentChanged(self.episode.close(outcome, reason)))
        self.episode = None
        return effects

    def _verify(self, step: int, trail: Trail) -> list[Effect]:
        trial = self.care.on_trial()
        if trial is None or trial.verify_at is None or step < trial.verify_at or self.episode is not None:
            return []
        if (trail.z["loss"][-3:] >= CALM_Z).any():
            return []
        reason = f"Step {step} was reached without a recurrence, with the loss in its band."
        effects = [self.care.step(InterventionEvent.VERIFY, reason)]
        self.care.last = None
        return effects + self._end_treated(Outcome.RECOVERED, "The rollback is verified.")

    def _recur(self, step: int) -> list[Effect]:
        """A rollback on trial did not hold."""
        if self.care.on_trial() is None:
            return []
        effects = [self.care.step(InterventionEvent.RECUR, f"The trouble came back by step {step}.")]
        return effects + self._end_treated(Outcome.ONGOING, "The trouble came back after the rollback.")

    def _end_treated(self, outcome: Outcome, reason: str) -> list[Effect]:
        incident, self.treated = self.treated, None
        if incident is None:
            return []
        state = advance(incident.state, IncidentEvent.CLOSE)
        return [IncidentChanged(replace(incident, state=state, outcome=outcome, reasons=[*incident.reasons, reason]))]
