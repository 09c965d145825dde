"""What an incident's page reads: every step around it, and the band that the detectors expected.

The band is worked out again from a kept state of the detectors and the rows since (monitor.detection.hindsight).
Cached for as long as nothing new happens in what is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from sqlalchemy.orm import Session

from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url, open_store
from db import interventions, lineage, queries
from db.lineage import StepRange
from db.models import Incident, Intervention, Run
from db.steps import reader
from monitor.detection import Rows
from monitor.detection.curve import COLUMNS
from monitor.detection.expected_bands import Band, bands
from monitor.detection.interventions import run_policy

LEAD, TRAIL = 150, 60
"""Steps shown before the onset and after the end."""
MAX_WINDOW_STEPS = 6000
"""Steps that are read at full resolution."""
RELEARN = 10_000
"""Steps before them that the detectors are taught at most, where no state was kept near."""


@dataclass(frozen=True, slots=True)
class IncidentWindow:
    """Steps [first, last] around an incident."""

    first: int
    last: int
    complete: bool
    """Nothing of the incident was left out."""
    original: Rows
    """The line that led to it, to the end of its segment."""
    bands: Mapping[str, Band]
    """Of `led`, by signal."""
    replacement: Rows | None
    """The line that took its place."""


def default_span(facts: RunFacts, incident: Incident) -> tuple[int, int, bool]:
    """First and last step to show, and whether that is all: from before the rewind to past the verification."""
    deeds = [each for each in interventions_of(facts, incident) if each.kind == "rollback"]
    back = [went for each in deeds if (went := rewound_step(facts, each)) is not None]
    newest = next((one.last_step for one in facts.segments if one.number == incident.segment), None)
    end = incident.end_step if incident.end_step is not None else newest
    ends = [max(incident.detected_step, end or 0) + TRAIL]
    ends += [each.details.get("verify_at") or 0 for each in deeds if rewound_step(facts, each) is not None]
    first = max(0, min([incident.onset_step - LEAD, *(step - TRAIL // 2 for step in back)]))
    last = max(ends)
    if last - first < MAX_WINDOW_STEPS:
        return first, last, True
    first = max(first, incident.onset_step - MAX_WINDOW_STEPS // 4)
    return first, min(last, first + MAX_WINDOW_STEPS), False


def interventions_of(facts: RunFacts, incident: Incident) -> list[Intervention]:
    return [each for each in facts.interventions if each.incident == incident.number]


def rewound_step(facts: RunFacts, intervention: Intervention) -> int | None:
    """The step that the trainer really went back to; None when it did not (yet)."""
    return interventions.rewound_step(intervention, facts.orders.get(intervention.number))


def read_incident_window(facts: RunFacts, incident: Incident, window: tuple[int, int] | None = None) -> IncidentWindow:
    """`window`: steps that a viewer asked for; those that lie beyond the usual span are read in its stead."""
    first, last, complete = default_span(facts, incident)
    if window is not None and not (first <= window[0] and window[1] <= last):
        first, last, complete = window[0], min(window[1], window[0] + MAX_WINDOW_STEPS), False
    seen = tuple((one.number, min(one.last_step or 0, last)) for one in facts.segments)
    where = (incident.segment, first, last)
    return _closeup(database_url(), facts.run.id, where, complete, seen, detection_key(facts), facts)


def detection_key(facts: RunFacts) -> tuple[str, int]:
    """What the bands depend on besides the steps: the run's settings of the detection, and its events."""
    return repr(run_policy.settings_of(facts.run.policy)), len(facts.events)


def batch_at(facts: RunFacts, step: int) -> int:
    """The batch with which this step of the live line begins: where it is not logged, batches are counted as steps."""
    with open_store(database_url()) as session:
        near = clipped(lineage.live_line(facts.segments), step - 1, step + 1)
        rows = _rows(session, facts.run, near)
    if "batch_index" not in rows.metrics:
        return step
    batch, at = rows.metrics["batch_index"][-1], int(rows.steps[-1])
    return int(batch) + step - at if np.isfinite(batch) else step


@st.cache_resource(show_spinner=False, max_entries=64)
def _closeup(
    url: str,
    run_id: str,
    where: tuple[int, int, int],
    complete: bool,
    seen: tuple[tuple[int, int], ...],  # part of the key only, as the next: new steps or another rule make a new entry
    judged: tuple[str, int],
    _facts: RunFacts,
) -> IncidentWindow:
    segment, first, last = where
    with open_store(url) as session:
        original = lineage.line_to(_facts.segments, segment)
        own = {step_range.segment for step_range in original}
        live = [step_range for step_range in lineage.live_line(_facts.segments) if step_range.segment not in own]
        rows = _rows(session, _facts.run, clipped(original, first, last + 1))
        later = _rows(session, _facts.run, clipped(live, first, last + 1))
        expected = _bands(session, _facts, original, rows) if len(rows) else {}
    return IncidentWindow(first, last, complete, rows, expected, later if len(later) else None)


def clipped(line: Sequence[StepRange], first: int, end: int) -> list[StepRange]:
    """The part of a line in the steps [first, end)."""
    cut = [
        replace(one, first=max(one.first, first), last=end if one.last is None else min(one.last, end)) for one in line
    ]
    return [one for one in cut if one.last is not None and one.first < one.last]


def _bands(session: Session, facts: RunFacts, line: Sequence[StepRange], rows: Rows) -> Mapping[str, Band]:
    first, last = int(rows.steps[0]), int(rows.steps[-1])
    kept = queries.snapshot_before(session, run=facts.run, step=first, line=line)
    start, state = (0, None) if kept is None else (kept[0] + 1, kept[1])
    if first - start > RELEARN:
        start, state = first - RELEARN, None
    return bands(
        rows,
        [_rows(session, facts.run, clipped(line, start, first))],
        detectors=state,
        declared=lineage.declared(facts.segments, facts.events, line, start, last + 1),
        settings=run_policy.settings_of(facts.run.policy),
    )


def _rows(session: Session, run: Run, line: Sequence[StepRange]) -> Rows:
    return rows_of(reader.read_line(session, run=run, line=line, metrics=COLUMNS))


def rows_of(read: reader.StepColumns) -> Rows:
    """As the detection takes them. Steps that a line has twice (a clock that went back) count once."""
    kept = np.flatnonzero(np.diff(read.steps, prepend=-1) > 0)
    metrics = {name: column.at(kept) for name, column in read.metrics.items()}
    return Rows(
        steps=read.steps[kept],
        metrics={name: column.values for name, column in metrics.items()},
        present={name: column.reported for name, column in metrics.items()},
        times=read.times[kept],
    )
