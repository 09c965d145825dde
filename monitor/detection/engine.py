"""The one object that the collector and the backtest drive: rows in, incidents and interventions out.

    engine = DetectionEngine(DetectionSettings(), Policy(mode="auto"))
    for effect in engine.feed(rows, restorable=[0, 50, 100]):
        ...

Its `detectors` score the rows; its `response` opens and follows incidents, lets the policy decide, and carries the
interventions through to their verification. Nothing here reads a clock or does I/O.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any

from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.protocol import DATA_NOT_REPEATED, LEVEL_ACCEPTED, SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.source_facts import SourceFacts, says_source
from lossguard.vocabulary.states import Outcome, Refusal, SegmentReason
from lossguard.vocabulary.wire import Notice
from monitor.detection.effects import Effect, Incident
from monitor.detection.encoding import restore
from monitor.detection.incidents.held_out import HELD_OUT_LOSS, HeldOutIncidents
from monitor.detection.incidents.replay_mismatch import OtherSamples, describe_match
from monitor.detection.incidents.stall import Silence
from monitor.detection.incidents.throughput_incidents import ThroughputIncidents
from monitor.detection.interventions.policy import Policy
from monitor.detection.interventions.response import IncidentResponse
from monitor.detection.interventions.restorable import Tiers
from monitor.detection.row import Row
from monitor.detection.rows import Rows
from monitor.detection.scoring.baseline import MAY_BE_SMOOTHED
from monitor.detection.scoring.detectors import SHIFT_EVENTS, VERSION, DetectorSet
from monitor.detection.scoring.recomputed_steps import RecomputedSteps, ReplayVerdict
from monitor.detection.scoring.replay_comparison import Comparison
from monitor.detection.scoring.scored_rows import ScoredRows
from monitor.detection.scoring.skip_effect import SkipEffect
from monitor.detection.scoring.value_scores import ScoredRow
from monitor.detection.settings import DetectionSettings

IN_PROCESS = (SegmentReason.ROLLBACK, SegmentReason.REWIND)
"""Reasons of segments that the same process computes, on the same hardware."""


class DetectionEngine:
    """See the module. `state_dict` / `load_state_dict` are exact."""

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
        self.settings = settings or DetectionSettings()
        self.detectors = DetectorSet(self.settings)
        self.response = IncidentResponse(
            self.settings,
            policy or Policy(),
            can_roll_back=can_roll_back,
            can_skip=can_skip,
            remedies=remedies,
            can_scale_lr=can_scale_lr,
            limits=limits,
        )
        self.last_step = -1
        self.recomputed = RecomputedSteps()
        self.throughput = ThroughputIncidents()
        self.held_out = HeldOutIncidents()

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
        self.response.read_row(row)
        self.held_out.observe_row(row)
        finding = self.throughput.observe_row(row)
        scored = self.detectors.feed_row(row)
        effects = self._judge(row.as_rows()) if scored is None else self._process_row(scored)
        if finding is not None:
            effects += self.throughput.report(finding, self.response.incidents.take_number)
        return effects

    def _process_row(self, scored: ScoredRow) -> list[Effect]:
        self.last_step = step = scored.row.step
        if not self.response.is_notable(scored):
            return []
        return self.response.observe(step, scored.readings(), self.detectors.recent)

    def _feed(self, rows: Rows) -> list[Effect]:
        self.response.read(rows)
        effects: list[Effect] = []
        start = 0
        take_number = self.response.incidents.take_number
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
            if (
                repeated := self.recomputed.observe_skip(part)
            ) is not None:  # before the policy decides on the same row
                effects += self.response.report_mismatch(repeated)
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
        self.response.read(scored.rows)
        return self._process(scored)

    def _process(self, scored: ScoredRows) -> list[Effect]:
        effects: list[Effect] = []
        steps, notable = scored.rows.steps, scored.alarms() | self.response.incidents.plateau_rows(scored)
        k = -1
        while (k := self.response.next_row(notable, steps, k + 1)) < len(steps):
            if not scored.is_withheld(k):
                cap = scored.skips.caps.get(k)
                effects += self.response.observe(int(steps[k]), scored.readings(k), scored.recent(k), cap)
        self.last_step = int(steps[-1])
        return effects

    def _report(self, verdict: ReplayVerdict | None) -> list[Effect]:
        """A verdict about recomputed steps: an incident, or a reason of the rollback that led to them."""
        if verdict is None:
            return []
        if verdict.is_mismatch():
            return self.response.report_mismatch(verdict)
        if verdict.is_new_process:  # it resumes: what led to it is no rollback
            return []
        return self.response.interventions.note(describe_match(verdict))

    # Actions of the trainer

    def set_restorable(self, steps: Sequence[int], tiers: Tiers | None = None) -> None:
        """Set the complete list of steps that can be restored now; `tiers`: where each of them is kept, if known."""
        self.response.set_restorable(steps, tiers)

    def declare(self, step: int, kind: str, details: Mapping[str, Any] | None = None) -> list[Effect]:
        """Declare a change that takes effect at `step`: signals find their new normal there.

        `details` matter of an event that says how the next rows are made (`says_source`), and of those by which the
        trainer says what it has seen of its samples.
        """
        if kind == SKIPPED_SAMPLE_RETURNED:
            return self.response.sample_returned(details or {})
        if kind == DATA_NOT_REPEATED:
            return self.response.report_mismatch(OtherSamples.from_details(step, details or {}))
        if says_source(kind, details or {}):
            self.set_source(SourceFacts.from_details(details or {}))
        step = max(step, self.last_step + 1)
        self.detectors.declare(step, kind)
        self.throughput.declare(step, kind)
        self.held_out.declare(step, kind)
        if kind in SHIFT_EVENTS:
            self.recomputed.end_at(step)
        return []

    def set_source(self, facts: SourceFacts) -> None:
        """Set how the next rows are made."""
        self.detectors.set_source(facts)
        self.response.set_source(facts)

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
        effects = self.conclude_replay() + self.response.incidents.discard_mismatch(step)
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
        return effects + self.held_out.go_back(step) + self.response.begin_segment(step, reason, obeyed)

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
        if recorded is None or self.response.interventions.changes_updates(obeyed):
            self.recomputed.go_back(step)
            return
        obeyed_skip = self.response.interventions.skip_of(obeyed)
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

    def taken_over(self, reason: str) -> list[Effect]:
        """Another process leads the run now: orders that are not carried out yet, and the open incident, end."""
        return self.response.taken_over(reason)

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
        return self.response.order_applied(
            number, rewound_to=rewound_to, skip_from=skip_from, skip_to=skip_to, compared=compared
        )

    def order_failed(self, number: int, detail: str, refusal: Refusal | None = None) -> list[Effect]:
        """Take in that the trainer could not execute intervention `number`; `refusal`: it would not."""
        return self.response.order_failed(number, detail, refusal)

    # Stalls, by the clock of the collector

    def report_stall(self, silence: Silence) -> list[Effect]:
        """Report that no step has come for too long. Nothing new while such an incident is open."""
        return self.throughput.report_stall(silence, self.last_step, self.response.incidents.take_number)

    def end_run(self, reason: str) -> list[Effect]:
        """The run has ended, so no step is missing any more."""
        return self.throughput.end_run(reason, self.last_step)

    # Decisions of an operator

    def approve(self, number: int) -> list[Effect]:
        """Raises ValueError when intervention `number` does not wait for a decision; so does `reject`."""
        return self.response.approve(number)

    def reject(self, number: int) -> list[Effect]:
        effects = self.response.reject(number)
        self.detectors.answer()
        return effects

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
        return self.response.roll_back(
            self.last_step,
            rewind_to=rewind_to,
            skip_from=skip_from,
            skip_to=skip_to,
            lr_scale=lr_scale,
            remedies=tuple(dict.fromkeys(remedies)),
            reason=reason,
        )

    def hold(self, reason: str = "") -> list[Effect]:
        """An operator stops the run at the next step boundary. Raises ValueError when it cannot be held, or is."""
        return self.response.hold(self.last_step, reason)

    def release(self, reason: str = "") -> list[Effect]:
        """An operator ends a hold. Raises ValueError when the run is not held."""
        effects = self.response.release(self.last_step, reason)
        self.detectors.answer()
        return effects

    def accept_level(self, reason: str = "") -> list[Effect]:
        """An operator says that the present level of the loss is normal: it is learnt before the next row.

        The caller stores it as an event LEVEL_ACCEPTED of the next step, so that whoever reads the rows again knows it.
        Raises ValueError when no incident of the loss is open, or when an order for it is under way.
        """
        effects = self.response.accept_level(reason)
        self.detectors.declare(self.last_step + 1, LEVEL_ACCEPTED)
        return effects

    def accept_replay(self, reason: str = "") -> list[Effect]:
        """An operator says that the difference of a replay is normal for this run: it counts as measured from now on.

        So does its data: batches may be skipped again. Raises ValueError when no replay mismatch is open.
        """
        text = "An operator accepted the difference: it counts as this run's replay scatter from now on."
        effects = self.response.incidents.close_mismatch(Outcome.ONGOING, f"{text} {reason}".strip())
        self.recomputed.accept()
        self.response.data_repeats = True
        return effects

    def notices(self) -> list[Notice]:
        """Return sentences that the trainer logs for the person who trains."""
        return self.response.incidents.notices()

    def set_policy(self, policy: Policy) -> None:
        """Set the policy from the next decision on."""
        self.response.set_policy(policy)

    def take_up(
        self, *, num_incidents: int, num_interventions: int, rollbacks_used: int, last: Mapping[str, Any] | None
    ) -> int | None:
        """Go on with a run whose state was lost: numbers never restart.

        `last`: its last intervention, as stored. Where that is under way, it is the active one: returns its number.
        """
        self.response.incidents.num_incidents = num_incidents
        self.response.interventions.rollbacks_used = rollbacks_used
        return self.response.interventions.take_up(num_interventions, last)

    @property
    def numbers(self) -> tuple[int, int]:
        """Numbers of incidents and of interventions so far."""
        return self.response.incidents.num_incidents, self.response.interventions.num_interventions

    # Persistence

    def detectors_state(self) -> dict[str, Any]:
        """The part that forks: a snapshot for later calls of `fork`."""
        return self.detectors.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return all state as strict JSON. Settings and policy are not part of it: the caller stores them."""
        state = {"version": VERSION, "detectors": self.detectors.state_dict(), "last_step": self.last_step}
        others = {"recomputed": self.recomputed.to_dict(), "throughput": self.throughput.to_dict()}
        held_out = {"held_out": self.held_out.to_dict()} if self.held_out != HeldOutIncidents() else {}
        return state | self.response.state_dict() | others | held_out

    def load_state_dict(self, state: Mapping[str, Any]) -> frozenset[str]:
        """Load a state; what it lacks is as in a new run. Raises ValueError for another version, and whatever reading a
        damaged part raises.

        Returns the signals that it has no detector for: they need `relearn` before the next row.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"it is of version {state.get('version')}, and this release reads version {VERSION}")
        new = self.detectors.load_state_dict(state.get("detectors") or {"version": VERSION})
        self.response.load_state_dict(state)
        self.response.set_source(self.detectors.source.facts)
        self.recomputed = restore(RecomputedSteps.from_dict, state.get("recomputed")) or RecomputedSteps()
        self.throughput = ThroughputIncidents.from_dict(state.get("throughput") or {})
        self.held_out = restore(HeldOutIncidents.from_dict, state.get("held_out")) or HeldOutIncidents()
        last_step = state.get("last_step")
        self.last_step = self.detectors.last_step if last_step is None else int(last_step)
        return new

    def relearn(
        self, signals: Iterable[str], history: Iterable[Rows], declared: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Feed the last stored rows of the live line to the detectors of these signals alone.

        `declared`: (step, kind) of the events that were announced on these rows.
        """
        self.detectors.relearn(signals, history, declared)
