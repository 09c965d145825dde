"""Facts about runs for pages and the report: values read from the store, without a session behind them.

The number of parameters N is `num_parameters` of the run's configuration (the trainer records it; any loop can).
Training takes about 6ND floating-point operations for D tokens (Kaplan et al. 2020, arXiv:2001.08361).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from dashboard.axes import RunAxes, StepAxis
from db.lineage import source_of
from db.models import Event, Incident, Intervention, Order, Run, Segment, SkippedBatches
from db.queries import Series
from db.records.step_notes import StepNote
from db.runs.overview import StepTime
from db.runs.verdicts import Verdict
from lossguard.vocabulary.protocol import NO_HEARTBEAT, uncertified_state
from lossguard.vocabulary.source_facts import SourceFacts
from monitor.detection.interventions.run_policy import Layers

LONG_GAP = 100
"""From so many times the usual on, the time between two rows is a hold or a hang; a save and an evaluation are not."""


@dataclass(frozen=True, slots=True)
class Compute:
    parameters: int | None
    tokens: float | None
    """Seen on the live line."""

    @property
    def tokens_per_parameter(self) -> float | None:
        return _finite(self.tokens / self.parameters) if self.tokens is not None and self.parameters else None

    @property
    def flops(self) -> float | None:
        """6ND."""
        return _finite(6.0 * self.parameters * self.tokens) if self.tokens is not None and self.parameters else None


def _finite(value: float) -> float | None:
    """Return the value, None for NaN and infinity: a loop may report such a token count."""
    return value if math.isfinite(value) else None


def num_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the number of parameters; None if the configuration does not have it."""
    model = config.get("model")  # where the callbacks of frameworks record it
    value = config.get("num_parameters", model.get("num_parameters") if isinstance(model, Mapping) else None)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 1e18:
        return int(value)
    return None


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Steps done on the live line, and their total where the run reported one."""

    done: int
    total: int | None
    seconds_per_step: float | None
    """Mean over the newest rows of the live line, without holds and hangs; None before the second row."""

    @property
    def fraction(self) -> float | None:
        """0..1; None without a total."""
        return min(1.0, self.done / self.total) if self.total is not None and self.total > 0 else None

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or self.seconds_per_step is None:
            return None
        return max(0, self.total - self.done) * self.seconds_per_step


def progress(run: Run, newest: Sequence[StepTime]) -> StepProgress:
    """Progress from the newest steps of the live line, in order."""
    if not newest:
        return StepProgress(0, run.total_steps, None)
    gaps = [(row.time - before.time, row.step - before.step) for before, row in pairwise(newest)]
    risen = [(seconds, steps) for seconds, steps in gaps if seconds > 0 and steps > 0]
    usual = median(seconds / steps for seconds, steps in risen) if risen else 0.0
    trained = [(seconds, steps) for seconds, steps in risen if seconds < LONG_GAP * steps * usual]
    pace = sum(seconds for seconds, _ in trained) / sum(steps for _, steps in trained) if trained else None
    last = newest[-1].step
    return StepProgress(last if last == run.total_steps else last + 1, run.total_steps, pace)  # some count from 1


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything about one run except its curves."""

    run: Run
    segments: Sequence[Segment]
    incidents: Sequence[Incident]
    interventions: Sequence[Intervention]
    orders: dict[int, Order]
    """Orders by number of the intervention."""
    ledger: Sequence[SkippedBatches]
    events: Sequence[Event]
    progress: StepProgress
    metrics: list[str]
    newest: dict[str, float | None]
    """The newest value of each metric: the newest step may be an evaluation's, without a loss."""
    mfu: float | None
    """Model FLOPs utilisation, 0..1, as last reported: it may be reported every so many steps only."""
    verdict: Verdict
    layers: Layers
    """Layers of the policy: the collector's, the project's and the run's."""
    notes: Sequence[StepNote] = ()
    """Notes of people at its steps, by step."""

    @property
    def compute(self) -> Compute:
        return Compute(num_parameters(self.run.config), self.newest.get("tokens"))

    @property
    def source(self) -> SourceFacts:
        """Source of the rows: how they are made."""
        return source_of(self.events)

    @property
    def uncertified(self) -> tuple[int, str] | None:
        """Step and reason of the newest state that is never restored, until a newer one can be."""
        events = ((each.segment, each.kind, each.details) for each in self.events)
        led = ((each.live_order, each.number) for each in self.segments if not each.is_beside)
        _, newest = max(led, default=(-1, -1))
        return uncertified_state(events, newest, self.run.restorable_steps)

    @property
    def stamp(self) -> tuple[float, ...]:
        """Changes when the run has new steps or a new segment: steps are never overwritten.

        An MLflow client may add values to a step later. The time of its start tells the run from a deleted one of
        its id.
        """
        later = [self.run.revision] if NO_HEARTBEAT in self.run.capabilities else []
        return (self.run.started_at, len(self.segments), *(segment.num_steps for segment in self.segments), *later)

    @property
    def marks_stamp(self) -> tuple[float, ...]:
        """Changes with every new incident, intervention, order, event or note, and with their states.

        Of these only notes are deleted, and the id of a deleted one is never used again.
        """
        changes = [each.changed_at for each in self.incidents] + [each.changed_at for each in self.interventions]
        answers = [order.answered_at or 0.0 for order in self.orders.values()]
        notes = (len(self.notes), max((note.id for note in self.notes), default=0))
        return (len(changes), max(changes, default=0.0), len(answers), sum(answers), *self.events_stamp, *notes)

    @property
    def events_stamp(self) -> tuple[int, int]:
        return len(self.events), max((event.id for event in self.events[-1:]), default=0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric: its live line, and its discarded branches by number of their segment."""

    live: Series
    discarded: dict[int, Series]


@dataclass(frozen=True, slots=True)
class RunCurves:
    """Some metrics of one run, and the positions of their steps along the chosen x axis."""

    by_metric: dict[str, Curve]
    run_axes: RunAxes


@dataclass(frozen=True, slots=True)
class LineCurves:
    """Some metrics of a run's live line or of one segment, and the positions of its steps along the chosen x axis."""

    by_metric: dict[str, Series]
    step_axis: StepAxis


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest reported value of a metric; NaN when it was not finite."""

    step: int
    value: float
