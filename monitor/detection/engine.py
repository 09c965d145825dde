"""The one object that the collector and the backtest drive: rows in, incidents and interventions out.

    watch = Watch(DetectionSettings(), Policy(mode="auto"))
    for effect in watch.feed(rows, restorable=[0, 50, 100]):
        ...

What a row does is in `course`; here is what others call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from lossguard.states import InterventionState, OrderKind, Outcome
from monitor.detection.course import Course
from monitor.detection.effects import Effect, IncidentChanged, Outlier
from monitor.detection.encoding import plain
from monitor.detection.incidents.incident_tracker import IncidentTracker, incident_from
from monitor.detection.incidents.states import InterventionEvent
from monitor.detection.interventions.batch_index import BatchIndex
from monitor.detection.interventions.intervention_tracker import (
    InterventionTracker,
    newest,
    persons_decision,
    verification,
)
from monitor.detection.interventions.policy import Decision, Policy
from monitor.detection.rows import Rows
from monitor.detection.scoring.detectors import DetectorSet, ScoredRows

RECENT, OLDER = 192, 64
"""Restorable steps that are kept of a longer list: the newest, and so many spread evenly over the rest."""


def thinned(steps: Sequence[int]) -> list[int]:
    """At most RECENT + OLDER of the steps, the oldest among them: a run that keeps them all has a small state too."""
    old, recent = steps[:-RECENT], steps[-RECENT:]
    return [*(old[k * len(old) // OLDER] for k in range(OLDER)), *recent] if len(old) > OLDER else list(steps)


class DetectionEngine(Course):
    """See the module. Nothing here reads a clock or does I/O; `state_dict` / `load_state_dict` are exact."""

    # Rows

    def feed(self, rows: Rows, *, restorable: Sequence[int] | None = None) -> list[Effect]:
        """Judge the next rows of the live line. `restorable`: the complete list when it is news."""
        if restorable is not None:
            self.restore_from(restorable)
        self.batches.learn(rows)
        effects: list[Effect] = []
        for judged in self.bank.feed(rows):
            effects += self._judge(judged)
        return effects

    def restore_from(self, steps: Iterable[int]) -> None:
        """The complete list of restorable steps."""
        self.restorable = thinned(sorted(int(step) for step in steps))

    def follow(self, judged: ScoredRows) -> list[Effect]:
        """Judge rows that a bank with the same settings has scored before: no policy changes the scores."""
        self.batches.learn(judged.rows)
        return self._judge(judged)

    # What happened outside

    def declare(self, step: int, kind: str) -> None:
        """A change that the trainer announced takes effect at `step`: signals find their new normal there."""
        self.bank.declare(max(step, self.last_step + 1), kind)

    def fork(
        self,
        step: int,
        reason: str,
        history: Iterable[Rows],
        detectors: dict[str, Any] | None,
        *,
        obeyed: int | None = None,
        declared: Sequence[tuple[int, str]] = (),
    ) -> list[Effect]:
        """A new segment begins at `step`, with baselines of the live line below it. See the module `bank`.

        `obeyed`: the intervention that the new segment executes; any other order stays open. `declared`: (step, kind)
        of the events that the trainer announced for the rows of `history`.
        """
        self.bank = DetectorSet(self.settings)
        if detectors is not None:
            self.bank.load_state_dict(detectors)
        for at, kind in declared:
            self.bank.declare(at, kind)
        for rows in history:
            for _ in self.bank.feed(rows):
                pass  # taught, not judged
        self.batches.rewind(step)
        self.pending = None
        self.last_step = step - 1
        if reason == "resume":
            self.bank.declare(step, reason)
        active = self.care.active
        if self._ordered() and active is not None:
            if active.kind is OrderKind.ROLLBACK and active.number == obeyed:
                return self.applied(active.number, rewound_to=step, skip_from=active.skip_from, skip_to=active.skip_to)
            if self.episode is not None:  # it goes on: the trainer may still obey
                self.episode.check_step = min(self.episode.check_step, step)
            return []
        words = "The run was restarted." if reason == "resume" else "The run left this segment by itself."
        effects: list[Effect] = []
        if active is not None and active.kind is OrderKind.HOLD and active.state is InterventionState.APPLIED:
            effects.append(self.care.step(InterventionEvent.WITHDRAW, words))  # it is held no longer: decide again
        return effects + self._close(Outcome.ONGOING, words) if self.episode is not None else effects

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
        if active.kind is OrderKind.RELEASE:
            return [self.care.step(InterventionEvent.APPLY), self.care.step(InterventionEvent.VERIFY)]
        fresh = active.state is not InterventionState.APPLIED
        if active.kind is OrderKind.HOLD:
            return [self.care.step(InterventionEvent.APPLY)] if fresh else []
        figures: dict[str, Any] = {
            "rewind_to": active.rewind_to if rewound_to is None else rewound_to,
            "skip_from": active.skip_from if skip_from is None else skip_from,
            "skip_to": active.skip_to if skip_to is None else skip_to,
        }
        if not fresh:
            return [self.care.correct(**figures)]
        verify_at = self._verify_at(active.verify_at, rewound_to)
        effects = [self.care.step(InterventionEvent.APPLY, verify_at=verify_at, **figures)]
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
        effects.append(self.care.decide(decision, incident, self.last_step, 1, verify_at, ask=False, by_policy=False))
        return effects if self.episode is None else [*effects, self._treat()]

    def release(self, reason: str = "") -> list[Effect]:
        """A person ends a hold. Raises ValueError when the run is not held."""
        active = self.care.active
        if active is None or active.kind is not OrderKind.HOLD:
            raise ValueError("the run is not held")
        held = active.state is InterventionState.APPLIED
        effects = [self.care.step(InterventionEvent.RELEASE if held else InterventionEvent.WITHDRAW, reason or None)]
        if self.episode is not None:
            self.episode.settled = True
        self.care.last = None
        decision = Decision(OrderKind.RELEASE, reasons=[reason or "A person released the run."])
        return [*effects, self.care.decide(decision, None, self.last_step, 1, 0, ask=False)]

    def _displace(self) -> list[Effect]:
        """A person's order takes the place of what is active."""
        active = self.care.active
        if active is None:
            return []
        held = active.kind is OrderKind.HOLD and active.state is InterventionState.APPLIED
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
            "root": self.root,
            "plateau_from": self.plateau_from,
            "incidents": self.incidents,
            "restorable": self.restorable,
            "last_step": self.last_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.bank.load_state_dict(state["bank"])
        self.care = InterventionTracker.from_dict(state["care"])
        self.batches = BatchIndex(**state["batches"])
        self.episode = None if state["episode"] is None else IncidentTracker.from_dict(state["episode"])
        self.treated = None if state["treated"] is None else incident_from(state["treated"])
        self.pending = None if state["pending"] is None else Outlier(**state["pending"])
        self.root, self.plateau_from = state["root"], state["plateau_from"]
        self.incidents, self.last_step = state["incidents"], state["last_step"]
        self.restorable = list(state["restorable"])
