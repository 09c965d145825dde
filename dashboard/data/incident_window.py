"""Data of an incident's page: every step around it, and the band that the detectors expected.

The band is computed again from a stored snapshot of the detectors and the rows since
(monitor.detection.expected_bands).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.orm import Session

from dashboard.axes import Floats
from dashboard.data.facts import RunFacts
from db import lineage, queries, run_states
from db.lineage import StepRange
from db.models import Incident, Intervention, Run
from db.steps import reader
from lossguard.vocabulary.metrics import detector_inputs
from lossguard.vocabulary.states import OrderKind
from monitor.detection import Rows
from monitor.detection.expected_bands import Band, bands
from monitor.detection.interventions import run_policy

LEAD_STEPS, TRAIL_STEPS = 150, 60
"""Steps shown before the onset and after the end."""
MAX_WINDOW_STEPS = 6000
"""Steps read at full resolution."""
MAX_LIVE_BAND_STEPS = 8000
"""Newest steps in view of a run's live line for which its expected band is computed."""
MIN_LIVE_BAND_SHARE = 0.1
"""Share of the steps in view below which that band would hardly be seen."""
MAX_WARM_UP_STEPS = 10_000
"""Steps before the window from which the detectors learn, where no snapshot is near."""


@dataclass(frozen=True, slots=True)
class StepWindow:
    """Steps [first, last]."""

    first: int
    last: int
    complete: bool
    """True if it contains the whole incident, from before the rewind to past the verification."""


@dataclass(frozen=True, slots=True)
class IncidentWindow(StepWindow):
    """The rows of these steps."""

    original: Rows
    """The line on which the incident occurred, to the end of its segment."""
    bands: Mapping[str, Band]
    """Expected bands of `original`, by signal."""
    replacement: Rows | None
    """The line that replaced it after a rewind."""

    @property
    def step_times(self) -> dict[int, float]:
        """Unix seconds at which the steps of `original` were done."""
        rows = self.original
        return {} if rows.times is None else dict(zip(rows.steps.tolist(), rows.times.tolist(), strict=True))


def default_window(facts: RunFacts, incident: Incident) -> StepWindow:
    """Return the steps from before the rewind to past the verification, at least MAX_WINDOW_STEPS around the onset."""
    rollbacks = [each for each in interventions_of(facts, incident) if each.kind == OrderKind.ROLLBACK]
    done = [(each, step) for each in rollbacks if (step := rewound_step(facts, each)) is not None]
    last_reported = next((one.last_step for one in facts.segments if one.number == incident.segment), None)
    end = incident.end_step if incident.end_step is not None else last_reported
    first = max(0, min([incident.onset_step - LEAD_STEPS, *(step - TRAIL_STEPS // 2 for _, step in done)]))
    verified = [each.details.get("verify_at") or 0 for each, _ in done]
    last = max([max(incident.detected_step, end or 0) + TRAIL_STEPS, *verified])
    if last - first < MAX_WINDOW_STEPS:
        return StepWindow(first, last, True)
    first = max(first, incident.onset_step - MAX_WINDOW_STEPS // 4)
    return StepWindow(first, min(last, first + MAX_WINDOW_STEPS), False)


def step_window(facts: RunFacts, incident: Incident, window: tuple[int, int] | None) -> StepWindow:
    """The default window, or `window` (first and last step) where that reaches beyond it."""
    default = default_window(facts, incident)
    if window is None or (default.first <= window[0] and window[1] <= default.last):
        return default
    return StepWindow(window[0], min(window[1], window[0] + MAX_WINDOW_STEPS), False)


def interventions_of(facts: RunFacts, incident: Incident) -> list[Intervention]:
    return [each for each in facts.interventions if each.incident == incident.number]


def rewound_step(facts: RunFacts, intervention: Intervention) -> int | None:
    """The step to which the trainer rewound; None when it did not (yet)."""
    return run_states.rewound_step(intervention, facts.orders.get(intervention.number))


def rewound_steps(facts: RunFacts, interventions: Iterable[Intervention]) -> list[int]:
    return [step for each in interventions if (step := rewound_step(facts, each)) is not None]


def skipped_batches(facts: RunFacts, interventions: Iterable[Intervention]) -> list[tuple[int, int]]:
    """The half-open ranges that the trainer skipped; a rollback that uses the same batches again has none."""
    return [
        (each.skip_from, each.skip_to)
        for each in interventions
        if each.skip_from is not None and each.skip_to is not None and rewound_step(facts, each) is not None
    ]


def detection_key(facts: RunFacts) -> tuple[str, int, int]:
    """Return the inputs of the bands besides the steps: the run's detection settings and its events."""
    return repr(run_policy.settings_of(facts.run.policy)), *facts.events_stamp


def read_batch(session: Session, facts: RunFacts, step: int, line: Sequence[StepRange]) -> int:
    """Index of the first batch of this step of a line, from the newest row up to it that has one.

    The step itself where the last MAX_WINDOW_STEPS have none.
    """
    near = clipped(line, step + 1 - MAX_WINDOW_STEPS, step + 1)
    rows = rows_of(reader.read_line(session, run=facts.run, line=near, metrics=["batch_index"]))
    batches = rows.metrics.get("batch_index", np.empty(0))
    known = np.flatnonzero(np.isfinite(batches))
    return int(batches[known[-1]]) + step - int(rows.steps[known[-1]]) if len(known) else step


def read_incident_window(session: Session, facts: RunFacts, segment: int, steps: StepWindow) -> IncidentWindow:
    """`segment`: number of the segment on which the incident occurred."""
    first, end = steps.first, steps.last + 1
    line = lineage.line_to(facts.segments, segment)
    own = {step_range.segment for step_range in line}
    other = [step_range for step_range in lineage.live_line(facts.segments) if step_range.segment not in own]
    original = _rows(session, facts.run, clipped(line, first, end))
    replacement = _rows(session, facts.run, clipped(other, first, end))
    return IncidentWindow(
        first=first,
        last=steps.last,
        complete=steps.complete,
        original=original,
        bands=_bands(session, facts, line, original) if len(original) else {},
        replacement=replacement if len(replacement) else None,
    )


def read_live_band(session: Session, facts: RunFacts, first: int, end: int) -> tuple[Floats, Band] | None:
    """Steps in [first, end) of the live line, and the band of the loss there; None where nothing was judged."""
    line = lineage.live_line(facts.segments)
    rows = _rows(session, facts.run, clipped(line, first, end))
    band = _bands(session, facts, line, rows).get("loss") if len(rows) else None
    return None if band is None else (rows.steps.astype(np.float64), band)


def clipped(line: Sequence[StepRange], first: int, end: int) -> list[StepRange]:
    """The part of a line in the steps [first, end)."""
    cut = [
        replace(one, first=max(one.first, first), last=end if one.last is None else min(one.last, end)) for one in line
    ]
    return [one for one in cut if one.last is not None and one.first < one.last]


def _bands(session: Session, facts: RunFacts, line: Sequence[StepRange], rows: Rows) -> Mapping[str, Band]:
    first, last = int(rows.steps[0]), int(rows.steps[-1])
    snapshot = queries.snapshot_before(session, run=facts.run, step=first, line=line)
    start, state = (0, None) if snapshot is None else (snapshot[0] + 1, snapshot[1])
    if first - start > MAX_WARM_UP_STEPS:
        start, state = first - MAX_WARM_UP_STEPS, None
    return bands(
        rows,
        [_rows(session, facts.run, clipped(line, start, first))],
        detectors=state,
        declared=lineage.declared(facts.segments, facts.events, line, start, last + 1),
        settings=run_policy.settings_of(facts.run.policy),
        source=facts.source,
    )


def _rows(session: Session, run: Run, line: Sequence[StepRange]) -> Rows:
    inputs = detector_inputs(queries.metric_names(session, run=run))
    return rows_of(reader.read_line(session, run=run, line=line, metrics=inputs))


def rows_of(read: reader.LineSteps) -> Rows:
    """Rows for the detection. A step that a line has twice (a clock that went back) counts once."""
    rising = np.flatnonzero(np.diff(read.steps, prepend=-1) > 0)
    metrics = {name: column.at(rising) for name, column in read.metrics.items()}
    return Rows(
        steps=read.steps[rising],
        metrics={name: column.values for name, column in metrics.items()},
        present={name: column.reported for name, column in metrics.items()},
        times=read.times[rising],
    )
