"""The one object that the collector and the backtest drive: rows in, incidents and interventions out.

    watch = Watch(DetectionSettings(), Policy(mode="auto"))
    for effect in watch.feed(rows, restorable=[0, 50, 100]):
        ...

In each row, in this order: open, follow or end the incident; let the policy decide; verify.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from monitor.detection.bank import Bank, Judged
from monitor.detection.batches import BatchIndex
from monitor.detection.care import Care, newest, persons_decision, verification
from monitor.detection.codec import plain
from monitor.detection.effects import (
    Effect,
    Incident,
    IncidentChanged,
    InterventionKind,
    Outcome,
    Outlier,
)
from monitor.detection.episodes import (
    CALM_Z,
    Episode,
    Reading,
    Trail,
    begin,
    foretold,
    incident_from,
    outcome_of,
    trigger,
)
from monitor.detection.policy import Decision, Mode, Policy, Situation, palm
from monitor.detection.rows import Rows
from monitor.detection.settings import DetectionSettings
from monitor.detection.states import IncidentEvent, InterventionEvent, InterventionState, advance


class Watch:
    """See the module. Nothing here reads a clock or does I/O; `state_dict` / `load_state_dict` are exact."""

    def __init__(
        self, settings: DetectionSettings | None = None, policy: Policy | None = None, *, can_roll_back: bool = True
    ) -> None:
        self.settings = settings or DetectionSettings()
        self.policy = policy or Policy()
        self.can_roll_back = can_roll_back
        self.bank = Bank(self.settings)
        self.care = Care()
        self.batches = BatchIndex()
        self.episode: Episode | None = None
        self.treated: Incident | None = None  # the incident behind the rollback that is on trial
        self.pending: Outlier | None = None  # a single row out of band, judged at the next row
        self.root: int | None = None  # the onset of the incident that the next one goes on from
        self.incidents = 0
        self.restorable: list[int] = []
        self.last_step = -1

    # Rows

    def feed(self, rows: Rows, *, restorable: Sequence[int] | None = None) -> list[Effect]:
        """Judge the next rows of the live line. `restorable`: the complete list when it is news."""
        if restorable is not None:
            self.restorable = sorted(int(step) for step in restorable)
        self.batches.learn(rows)
        effects: list[Effect] = []
        for judged in self.bank.feed(rows):
            effects += self._judge(judged)
        return effects

    def _judge(self, judged: Judged) -> list[Effect]:
        effects: list[Effect] = []
        steps, alarms = judged.rows.steps, judged.alarms()
        k = -1
        while (k := self._next(alarms, steps, k + 1)) < len(steps):
            effects += self._row(int(steps[k]), judged.readings(k), judged.trail(k))
        self.last_step = int(steps[-1])
        return effects

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
        effects = self._worse(readings)
        if self.episode is None:
            effects += self._open(step, readings, trail)
        elif self.episode.observe(step, readings):
            effects.append(IncidentChanged(self.episode.incident))
        effects += self._decide(step)
        if self.episode is not None and self.episode.over(self.settings) and not self._ordered():
            effects += self._close(*outcome_of(self.episode, readings))
        return effects + self._verify(step, trail)

    def _worse(self, readings: Mapping[str, Reading]) -> list[Effect]:
        """Something graver begins in the course of an incident: that one ends here and a new one begins."""
        reason = None if self.episode is None or self._ordered() else self.episode.outdone(readings)
        if self.episode is None or reason is None:
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
        if decision.kind is None:
            return []
        if self.policy.mode is Mode.OBSERVE:
            episode.settled = True
            words = " ".join([f"Observed only; the policy would {decision.kind.value}.", *decision.reasons])
            return [self._incident(reasons=[*episode.incident.reasons, words])]
        effects = self._recur(step)
        verify_at = verification(self.policy, max(step, episode.last_out), decision.rewind_to)
        ask = self.policy.mode is Mode.APPROVE
        effects.append(self.care.decide(decision, episode.incident.number, step, attempt, verify_at, ask))
        return effects if ask else [*effects, self._treat()]

    def _situation(self, episode: Episode, step: int, attempt: int, previous: int | None) -> Situation:
        return Situation(
            kind=episode.incident.kind,
            onset_step=min(episode.root, episode.incident.onset_step),
            detected_step=episode.incident.detected_step,
            step=step,
            broken=episode.broken,
            moved=episode.moved,
            excess=episode.excess,
            peak_excess=episode.peak_excess,
            check_excess=episode.check_excess,
            check_step=episode.check_step,
            rising_rows=episode.rising_rows,
            falls=episode.falls,
            rises=episode.rises,
            scale=episode.incident.scale,
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
        if self.episode is None:
            return []
        return [self._incident(state=advance(self.episode.incident.state, IncidentEvent.RELAPSE))]

    def _close(self, outcome: Outcome, reason: str) -> list[Effect]:
        assert self.episode is not None
        effects: list[Effect] = []
        active = self.care.active
        if active is not None and active.state is InterventionState.PROPOSED:
            effects.append(self.care.step(InterventionEvent.WITHDRAW, f"Its incident ended without it. {reason}"))
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

    # What happened outside

    def declare(self, step: int, kind: str, details: Mapping[str, object]) -> list[Effect]:
        """A change that the trainer announced takes effect at `step`: signals find their new normal there."""
        self.bank.declare(max(step, self.last_step + 1))
        return []

    def fork(self, step: int, reason: str, history: Iterable[Rows], detectors: dict[str, Any] | None) -> list[Effect]:
        """A new segment begins at `step`, with baselines of the live line below it. See the module `bank`."""
        self.bank = Bank(self.settings)
        if detectors is not None:
            self.bank.load_state_dict(detectors)
        for rows in history:
            for _ in self.bank.feed(rows):
                pass  # taught, not judged
        self.batches.rewind(step)
        self.pending = None
        self.last_step = step - 1
        if reason == "resume":
            self.bank.declare(step)
        active = self.care.active
        if active is not None and active.kind is InterventionKind.ROLLBACK and self._ordered():
            return self.applied(active.number, rewound_to=step, skip_from=active.skip_from, skip_to=active.skip_to)
        return self._close(Outcome.ONGOING, "The run left this segment by itself.") if self.episode is not None else []

    def detectors_state(self) -> dict[str, Any]:
        """The part that forks: a snapshot for later calls of `fork`."""
        return self.bank.state_dict()

    def applied(
        self, number: int, *, rewound_to: int | None, skip_from: int | None, skip_to: int | None
    ) -> list[Effect]:
        """The trainer executed intervention `number`; said twice, the second time only corrects the figures."""
        active = self.care.active
        if active is None or active.number != number:
            self.care.settled(number)
            return []
        if active.kind is InterventionKind.RELEASE:
            return [self.care.step(InterventionEvent.APPLY), self.care.step(InterventionEvent.VERIFY)]
        if active.kind is InterventionKind.HOLD:
            return [self.care.step(InterventionEvent.APPLY)]
        fresh = active.state is not InterventionState.APPLIED
        effects = [
            self.care.correct(
                rewind_to=active.rewind_to if rewound_to is None else rewound_to,
                skip_from=active.skip_from if skip_from is None else skip_from,
                skip_to=active.skip_to if skip_to is None else skip_to,
                verify_at=self._verify_at(active.verify_at, rewound_to) if fresh else active.verify_at,
            )
        ]
        if not fresh:
            return effects
        effects = [self.care.step(InterventionEvent.APPLY)]
        if self.episode is not None:
            self.treated, self.episode = replace(self.episode.incident, end_step=self.episode.last_out), None
            effects.append(IncidentChanged(self.treated))
        return effects

    def _verify_at(self, planned: int | None, rewound_to: int | None) -> int:
        last_out = self.episode.last_out if self.episode is not None else 0
        return max(planned or 0, verification(self.policy, last_out, rewound_to))

    def failed(self, number: int, detail: str) -> list[Effect]:
        """The trainer could not execute intervention `number`."""
        self.care.pick(number)
        return [self.care.step(InterventionEvent.FAIL, f"The trainer could not do it: {detail}"), *self._relapse()]

    # A person's word

    def approve(self, number: int) -> list[Effect]:
        self.care.pick(number)
        effects = [self.care.order()]
        return [*effects, self._treat()] if self.episode is not None else effects

    def reject(self, number: int) -> list[Effect]:
        self.care.pick(number)
        effects = [self.care.step(InterventionEvent.REJECT, "A person said no.")]
        if self.episode is not None:
            self.episode.settled = True
        return effects

    def rollback(self, *, rewind_to: int | None = None, skip_to: int | None = None, reason: str = "") -> list[Effect]:
        """A person's order. Raises ValueError when the run cannot, or no checkpoint fits."""
        if not self.can_roll_back:
            raise ValueError("this run only reports: it cannot roll back")
        onset = self.last_step if self.episode is None else self.episode.incident.onset_step
        wanted = max(onset - self.policy.min_depth, min(self.restorable, default=0)) if rewind_to is None else rewind_to
        target = newest(self.restorable, wanted)
        skip_from = self.batches.at(target)
        end = skip_from + self.policy.skip_min if skip_to is None else skip_to
        if end < skip_from:
            raise ValueError(f"skip_to ({end}) must not be below the checkpoint's batch {skip_from}")
        effects = self._displace()
        verify_at = verification(self.policy, self.last_step, target)
        incident = None if self.episode is None else self.episode.incident.number
        decision = persons_decision(target, skip_from, end, reason)
        effects.append(self.care.decide(decision, incident, self.last_step, 1, verify_at, ask=False))
        return effects if self.episode is None else [*effects, self._treat()]

    def release(self, reason: str = "") -> list[Effect]:
        """A person ends a hold. Raises ValueError when the run is not held."""
        active = self.care.active
        if active is None or active.kind is not InterventionKind.HOLD:
            raise ValueError("the run is not held")
        held = active.state is InterventionState.APPLIED
        effects = [self.care.step(InterventionEvent.RELEASE if held else InterventionEvent.WITHDRAW, reason or None)]
        if self.episode is not None:
            self.episode.settled = True
        self.care.last = None
        decision = Decision(InterventionKind.RELEASE, reasons=[reason or "A person released the run."])
        return [*effects, self.care.decide(decision, None, self.last_step, 1, 0, ask=False)]

    def _displace(self) -> list[Effect]:
        """A person's order takes the place of what is active."""
        active = self.care.active
        if active is None:
            return []
        held = active.kind is InterventionKind.HOLD and active.state is InterventionState.APPLIED
        event = InterventionEvent.RELEASE if held else InterventionEvent.WITHDRAW
        effects = [self.care.step(event, "A person's order takes its place.")]
        return effects + self._end_treated(Outcome.ONGOING, "A person's order took the place of the rollback.")

    def set_policy(self, policy: Policy) -> None:
        """From the next decision on."""
        self.policy = policy

    # Persistence

    def state_dict(self) -> dict[str, Any]:
        """All of it, JSON-able and free of NaN; settings and policy are the caller's to keep."""
        treated, pending = self.treated, self.pending
        return {
            "bank": self.bank.state_dict(),
            "care": self.care.to_dict(),
            "batches": asdict(self.batches),
            "episode": None if self.episode is None else self.episode.to_dict(),
            "treated": None if treated is None else asdict(treated) | {"peak_value": plain(treated.peak_value)},
            "pending": None if pending is None else asdict(pending),
            "incidents": self.incidents,
            "restorable": self.restorable,
            "last_step": self.last_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.bank.load_state_dict(state["bank"])
        self.care = Care.from_dict(state["care"])
        self.batches = BatchIndex(**state["batches"])
        self.episode = None if state["episode"] is None else Episode.from_dict(state["episode"])
        self.treated = None if state["treated"] is None else incident_from(state["treated"])
        self.pending = None if state["pending"] is None else Outlier(**state["pending"])
        self.incidents, self.last_step = state["incidents"], state["last_step"]
        self.restorable = list(state["restorable"])
