"""The one object that the collector and the backtest drive: rows in, incidents and interventions out.

    engine = DetectionEngine(DetectionSettings(), Policy(mode="auto"))
    for effect in engine.feed(rows, restorable=[0, 50, 100]):
        ...

The engine scores the rows; what it inherits opens and follows incidents, lets the policy decide, and carries the
interventions through to their verification. Nothing here reads a clock or does I/O.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any

from lossguard.vocabulary.protocol import DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.source_facts import SourceFacts, says_source
from lossguard.vocabulary.states import SegmentReason
from monitor.detection.effects import Effect, Incident
from monitor.detection.encoding import dump, load, restore
from monitor.detection.incidents.held_out import HELD_OUT_LOSS, HeldOutIncidents
from monitor.detection.incidents.incident_tracker import IncidentTracker
from monitor.detection.incidents.replay_mismatch import OtherSamples, describe_match
from monitor.detection.incidents.throughput_incidents import Silence, ThroughputIncidents
from monitor.detection.interventions.intervention_tracker import InterventionTracker
from monitor.detection.interventions.response import IncidentResponse
from monitor.detection.interventions.restorable import BatchIndex, by_tier, restorable_steps
from monitor.detection.rows import Row, Rows
from monitor.detection.scoring.baseline import MAY_BE_SMOOTHED
from monitor.detection.scoring.detectors import SHIFT_EVENTS, VERSION, DetectorSet
from monitor.detection.scoring.recomputed_steps import RecomputedSteps, ReplayVerdict
from monitor.detection.scoring.replay_comparison import Comparison
from monitor.detection.scoring.scored_rows import ScoredRows
from monitor.detection.scoring.skip_effect import SkipEffect
from monitor.detection.throughput.durations import StepTimes

IN_PROCESS = (SegmentReason.ROLLBACK, SegmentReason.REWIND)
"""Reasons of segments that the same process computes, on the same hardware."""


class DetectionEngine(IncidentResponse):
    """See the module. `state_dict` / `load_state_dict` are exact."""

    # Rows

    def feed(self, rows: Rows, *, restorable: Sequence[int] | None = None) -> list[Effect]:
        """Judge the next rows of the live line. `restorable`: the complete list of restorable steps, if it changed."""
        if restorable is not None:
            self.set_restorable(restorable)
        if len(rows) == 1 and (row := Row.of(rows)) is not None:
            return self.feed_row(row)
        return self._feed(rows)

    def feed_row(self, row: Row) -> list[Effect]:
        """Judge a single row: the same as `feed`, to the last bit, at a fraction of the cost."""
        if self.recomputed.is_under_way or not self.throughput.is_plain(row.step) or HELD_OUT_LOSS in row.values:
            return self._feed(row.as_rows())
        self.read_row(row)
        self.held_out.observe_row(row)
        finding = self.throughput.observe_row(row)
        scored = self.detectors.feed_row(row)
        if scored is None:
            effects = self._judge(row.as_rows())
        else:
            self.last_step = row.step
            is_notable = self.is_notable(scored)
            effects = self.observe(row.step, scored.readings, self.detectors.recent) if is_notable else []
        if finding is not None:
            effects += self.throughput.report(finding, self.incidents.take_number)
        return effects

    def _feed(self, rows: Rows) -> list[Effect]:
        self.read(rows)
        effects: list[Effect] = []
        start = 0
        take_number = self.incidents.take_number
        for end, finding in merge(self.throughput.observe(rows), self.held_out.observe(rows), key=itemgetter(0)):
            effects += self._judge(rows[start:end])
            owner: Any = self.held_out if isinstance(finding, Incident) else self.throughput
            effects += owner.report(finding, take_number)
            start = end
        return effects + self._judge(rows[start:])

    def _judge(self, rows: Rows) -> list[Effect]:
        effects: list[Effect] = []
        for part in self._parts(rows):
            effects += self._report(self.recomputed.observe(part))
            repeated = self.recomputed.observe_skip(part)
            if repeated is not None:  # before the policy decides on the same row
                effects += self.report_mismatch(repeated)
            for scored in self.detectors.feed(part):
                effects += self._process(scored)
        return effects

    def _parts(self, rows: Rows) -> Iterator[Rows]:
        """The rows, one by one while recomputed steps are compared: no effect depends on how rows are reported."""
        while self.recomputed.is_under_way and len(rows) > 1:
            yield rows[:1]
            rows = rows[1:]
        if len(rows):
            yield rows

    def feed_scored(self, scored: ScoredRows) -> list[Effect]:
        """Judge rows that detectors with the same settings have scored already: scores do not depend on the policy."""
        self.read(scored.rows)
        return self._process(scored)

    def _process(self, scored: ScoredRows) -> list[Effect]:
        effects: list[Effect] = []
        steps, notable = scored.rows.steps, scored.alarms() | self.incidents.plateau_rows(scored)
        k = -1
        while (k := self.next_row(notable, steps, k + 1)) < len(steps):
            if not scored.is_withheld(k):
                cap = scored.skips.caps.get(k)
                effects += self.observe(int(steps[k]), scored.readings(k), scored.recent(k), cap)
        self.last_step = int(steps[-1])
        return effects

    def _report(self, verdict: ReplayVerdict | None) -> list[Effect]:
        """A verdict about recomputed steps: an incident, or a reason of the rollback that led to them."""
        if verdict is None:
            return []
        if verdict.is_mismatch():
            return self.report_mismatch(verdict)
        if verdict.is_new_process:  # it resumes: what led to it is no rollback
            return []
        return self.interventions.note(describe_match(verdict))

    # Actions of the trainer

    def declare(self, step: int, kind: str, details: Mapping[str, Any] | None = None) -> list[Effect]:
        """Declare a change that takes effect at `step`: signals find their new normal there.

        `details` matter of an event that says how the next rows are made (`says_source`), and of those by which the
        trainer says what it has seen of its samples.
        """
        if kind == SKIPPED_SAMPLE_RETURNED:
            return self.sample_returned(details or {})
        if kind == DATA_NOT_REPEATED:
            return self.report_mismatch(OtherSamples.from_details(step, details or {}))
        if says_source(kind, details or {}):
            self.set_source(SourceFacts.from_details(details or {}))
        step = max(step, self.last_step + 1)
        self.detectors.declare(step, kind)
        self.throughput.declare(step, kind)
        self.held_out.declare(step, kind)
        if kind in SHIFT_EVENTS:
            self.recomputed.end_at(step)
        return []

    def conclude_replay(self) -> list[Effect]:
        """The segment has ended: recomputed steps are judged by the rows that there are."""
        return self._report(self.recomputed.conclude())

    def fork(
        self,
        step: int,
        reason: str,
        history: Iterable[Rows],
        detectors: Mapping[str, Any] | None,
        *,
        obeyed: int | None = None,
        declared: Sequence[tuple[int, str]] = (),
        earlier: Iterable[Rows] = (),
        recorded: Rows | None = None,
        doubtful_from: int | None = None,
    ) -> list[Effect]:
        """Begin a segment at `step`: the detectors go back to where they stood before it on the live line.

        `detectors`: a snapshot (see `detectors_state`), None for fresh ones; `history`: the rows of the live line
        between it and `step`; `obeyed`: the intervention that the new segment executes, any other order stays open;
        `declared`: (step, kind) of the events announced on these rows; `earlier`: rows before the snapshot, read only
        where it lacks a signal; `recorded`: the first rows that were stored from `step` on before it, to be compared
        with those that are computed again; `doubtful_from`: those from this step on are no reference.
        """
        effects = self.conclude_replay() + self.incidents.discard_mismatch(step)
        facts = self.detectors.source.facts
        self.detectors = DetectorSet.at(self.settings, detectors, declared, earlier)
        if self.detectors.source.facts != facts:  # the snapshot is older than what is known of the source
            self.detectors.set_source(facts)
        self.detectors.learn(history)
        self.last_step = step - 1
        self.throughput.begin_segment(is_new_process=reason not in IN_PROCESS)
        self._begin_comparison(step, recorded, doubtful_from, obeyed, is_new_process=reason not in IN_PROCESS)
        if reason == SegmentReason.RESUME and not self.detectors.is_raised():
            self.detectors.declare(step, reason)  # a level that nobody has accepted stays news
        return effects + self.held_out.go_back(step) + self.begin_segment(step, reason, obeyed)

    def _begin_comparison(
        self, step: int, recorded: Rows | None, doubtful_from: int | None, obeyed: int | None, *, is_new_process: bool
    ) -> None:
        """Compare the next rows with `recorded`, unless the order changes the updates.

        Losses are not compared while the noise is not known, and where they were smoothed or averaged before they were
        logged: they depend on the state of the smoothing, which a restart loses.
        """
        baseline, facts = self.detectors.by_signal["loss"].baseline, self.detectors.source.facts
        losses = baseline.is_settled() and baseline.autocorrelation < MAY_BE_SMOOTHED
        losses = losses and not facts.smoothing and not facts.averaged
        if recorded is None or self.interventions.changes_updates(obeyed):
            self.recomputed.go_back(step)
            return
        obeyed_skip = self.interventions.skip_of(obeyed)
        skip_effect = None
        if obeyed_skip is not None and baseline.is_settled():
            first, end = obeyed_skip
            skip_effect = SkipEffect.of(step, recorded, skip_from=first, skip_to=end, noise=baseline.noise)
        comparison = Comparison.of(
            step,
            recorded,
            noise=baseline.noise,
            is_new_process=is_new_process,
            end_step=doubtful_from,
            losses=losses,
        )
        self.recomputed.begin(comparison, step, is_new_process=is_new_process, losses=losses, skip_effect=skip_effect)

    # Stalls, by the clock of the collector

    def report_stall(self, silence: Silence) -> list[Effect]:
        """Report that no step has come for too long. Nothing new while such an incident is open."""
        return self.throughput.report_stall(silence, self.last_step, self.incidents.take_number)

    def end_run(self, reason: str) -> list[Effect]:
        """The run has ended, so no step is missing any more."""
        return self.throughput.end_run(reason, self.last_step)

    def take_up(
        self, *, num_incidents: int, num_interventions: int, rollbacks_used: int, last: Mapping[str, Any] | None
    ) -> int | None:
        """Go on with a run whose state was lost: numbers never restart.

        `last`: its last intervention, as stored. Where that is under way, it is the active one: returns its number.
        """
        self.incidents.num_incidents = num_incidents
        self.interventions.rollbacks_used = rollbacks_used
        return self.interventions.take_up(num_interventions, last)

    @property
    def numbers(self) -> tuple[int, int]:
        """Numbers of incidents and of interventions so far."""
        return self.incidents.num_incidents, self.interventions.num_interventions

    # Persistence

    def detectors_state(self) -> dict[str, Any]:
        """The part that forks: a snapshot for later calls of `fork`."""
        return self.detectors.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return all state as strict JSON. Settings and policy are not part of it: the caller stores them."""
        state = {"version": VERSION, "detectors": self.detectors.state_dict(), "last_step": self.last_step}
        response = {
            "incidents": self.incidents.to_dict(),
            "interventions": dump(self.interventions),
            "batches": dump(self.batches),
            "restorable": [each.step for each in self.restorable],
            "restorable_tiers": by_tier(self.restorable),
            "step_times": self.step_times.to_dict(),
            "data_repeats": self.data_repeats,
        }
        others = {"recomputed": dump(self.recomputed), "throughput": dump(self.throughput)}
        held_out = {"held_out": self.held_out.to_dict()} if self.held_out != HeldOutIncidents() else {}
        return state | response | others | held_out

    def load_state_dict(self, state: Mapping[str, Any]) -> frozenset[str]:
        """Load a state; what it lacks is as in a new run. Raises ValueError for another version, and whatever reading a
        damaged part raises.

        Returns the signals that it has no detector for: they need `relearn` before the next row.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"it is of version {state.get('version')}, and this release reads version {VERSION}")
        new = self.detectors.load_state_dict(state.get("detectors") or {"version": VERSION})
        self.source = self.detectors.source.facts
        self.incidents = load(IncidentTracker, state.get("incidents") or {}, settings=self.settings, source=self.source)
        self.interventions = load(InterventionTracker, state.get("interventions") or {})
        self.batches = load(BatchIndex, state.get("batches") or {})
        self.data_repeats = state.get("data_repeats") is not False
        self.step_times = restore(StepTimes.from_dict, state.get("step_times")) or StepTimes()
        steps, tiers = state.get("restorable") or [], state.get("restorable_tiers")
        self.restorable = restore(lambda each: restorable_steps(steps, each), tiers) or restorable_steps(steps)
        self.recomputed = load(RecomputedSteps, state.get("recomputed") or {})
        self.throughput = load(ThroughputIncidents, state.get("throughput") or {})
        self.held_out = restore(HeldOutIncidents.from_dict, state.get("held_out")) or HeldOutIncidents()
        last_step = state.get("last_step")
        self.last_step = self.detectors.last_step if last_step is None else int(last_step)
        return new
