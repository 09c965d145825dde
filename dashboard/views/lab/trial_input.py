"""Input of the detector lab: the rows of a stored run, or an uploaded curve.

A run is replayed as it was trained, segment by segment, with its discarded branches: a simulation can detect again what
the run rolled back.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from sqlalchemy.orm import Session

from dashboard import formatting
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import clipped, rows_of
from dashboard.data.store import database_url, open_store
from db import lineage
from db.lineage import StepRange
from db.models import Segment
from db.steps import reader
from lossguard.vocabulary.metrics import detector_inputs
from lossguard.vocabulary.states import NOT_REPLAYED
from monitor.detection import DetectionSettings, Rows
from monitor.detection.curve import parse_curve
from monitor.detection.simulation import ScoredSegment, SegmentRows, score

MAX_ROWS = 100_000
"""Rows of one simulation."""
MAX_CURVE_ROWS = 1_000_000
"""Rows of an uploaded curve; a longer one is refused."""
TRUTH = "truth"
"""Column of a curve that is not 0 where an incident is known."""
FAULT_PATTERN = re.compile(r"(\w+)@([0-9]{1,15})(?:x([0-9]{1,9}))?")
"""KIND@FIRST or KIND@FIRSTxCOUNT, as the trainer records injected faults."""


@dataclass(frozen=True, slots=True)
class KnownIncident:
    """An incident or an injected fault that is known to have happened, on steps [first, last]."""

    name: str
    first: int
    last: int
    segment: int | None = None
    """Number of the segment; None for any segment."""


@dataclass(frozen=True, slots=True)
class TrialInput:
    """Rows on which settings are tried."""

    key: str
    """Unique for these rows; scores are cached by it."""
    segments: Sequence[SegmentRows]
    discarded_from: Mapping[int, int]
    """First discarded step by segment number. Segments on the live line to their end have none."""
    known_incidents: Sequence[KnownIncident] = ()
    num_available: int = 0
    """Rows of the run or curve, including those that were not read."""
    truth: str = ""
    """Source of the known incidents, for people; empty if there is none."""

    @property
    def num_rows(self) -> int:
        return sum(len(segment.rows) for segment in self.segments)


@st.cache_resource(
    show_spinner="Scoring all steps ...", max_entries=6, hash_funcs={TrialInput: lambda trial_input: trial_input.key}
)
def scored(trial_input: TrialInput, settings: DetectionSettings) -> Sequence[ScoredSegment]:
    """The scores of all rows: the slow part, cached for all viewers."""
    return score(trial_input.segments, settings)


def of_run(facts: RunFacts, steps: tuple[int, int], *, max_rows: int = MAX_ROWS) -> TrialInput:
    """The run's rows from the first to the last of these steps, at most the newest `max_rows`."""
    return _of_run(database_url(), facts.run.id, facts.stamp, newest_steps(facts, steps, max_rows), facts)


@st.cache_resource(show_spinner="Reading the run ...", max_entries=4)
def _of_run(url: str, run_id: str, stamp: tuple[float, ...], steps: tuple[int, int], _facts: RunFacts) -> TrialInput:
    with open_store(url) as session:
        segments = [_segment_rows(session, _facts, segment, *steps) for segment in _facts.segments]
    known, truth = _known_incidents(_facts, segments)
    return TrialInput(
        key=f"{url} {run_id} {stamp} {steps[0]}-{steps[1]}",
        segments=[segment for segment in segments if len(segment.rows)],
        discarded_from={branch.segment: branch.first for branch in lineage.discarded(_facts.segments)},
        known_incidents=known,
        num_available=sum(segment.num_steps for segment in _facts.segments),
        truth=truth,
    )


def _segment_rows(session: Session, facts: RunFacts, segment: Segment, first: int, last: int) -> SegmentRows:
    fork_step = segment.fork_step or 0
    line = clipped([StepRange(segment.number, fork_step, None)], first, last + 1)
    rows = rows_of(reader.read_line(session, run=facts.run, line=line, metrics=detector_inputs(facts.metrics)))
    declared = lineage.declared(facts.segments, facts.events, line, first, last + 1)
    fork_step = max(fork_step, first)
    return SegmentRows(rows, segment.number, segment.parent, fork_step, segment.reason, declared, facts.source)


def newest_steps(facts: RunFacts, steps: tuple[int, int], max_rows: int) -> tuple[int, int]:
    """Drop the first steps so that all segments together have at most `max_rows` rows."""
    first, last = steps
    ranges = [(each.fork_step or 0, each.last_step) for each in facts.segments if each.last_step is not None]
    while sum(max(0, min(last, end) - max(first, start) + 1) for start, end in ranges) > max_rows and first < last:
        first += max(1, (last - first) // 64)
    return first, last


def _known_incidents(facts: RunFacts, segments: Sequence[SegmentRows]) -> tuple[list[KnownIncident], str]:
    """The faults that the configuration says were injected, else the run's own incidents; and which of the two."""
    faults = [match for text in _texts(facts, "faults") if (match := FAULT_PATTERN.fullmatch(text))]
    if faults:
        in_data = _texts(facts, "faults_in_data" if "faults_in_data" in facts.run.config else "faults")
        by_batch = () if facts.run.config.get("faults_at_steps") else in_data
        found = [each for fault in faults for each in _injected(fault, segments, fault[0] in by_batch)]
        return found, "the injected faults"
    own = [
        KnownIncident(
            f"incident {each.number}: {formatting.incident_kind(each.kind)}",
            each.onset_step,
            each.end_step or each.detected_step,
            each.segment,
        )
        for each in facts.incidents
        if each.kind not in NOT_REPLAYED
    ]
    return own, "the run's own incidents"


def _texts(facts: RunFacts, name: str) -> list[str]:
    """A list in the run's configuration; empty if there is none."""
    values = facts.run.config.get(name)
    return [str(each) for each in values] if isinstance(values, list) else []


def _injected(fault: re.Match[str], segments: Sequence[SegmentRows], by_batch: bool) -> Iterator[KnownIncident]:
    """Yield the incident of a fault where the run first reached its step, or its batch if `by_batch` and logged."""
    first, count = int(fault[2]), int(fault[3] or 1)
    for segment in segments:
        batches = segment.rows.metrics.get("batch_index") if by_batch else None
        positions = segment.rows.steps if batches is None else batches
        steps = segment.rows.steps[(positions >= first) & (positions < first + count)]
        if len(steps):
            yield KnownIncident(fault[0], int(steps[0]), int(steps[-1]), segment.number)
            return


def of_curve(name: str, content: bytes) -> TrialInput:
    """An uploaded CSV file. Raises CurveError."""
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    all_rows = parse_curve(name, lines, also=[TRUTH], max_rows=MAX_CURVE_ROWS)
    rows = all_rows.newest(MAX_ROWS)
    return TrialInput(
        key=hashlib.sha256(content).hexdigest(),
        segments=[SegmentRows(rows, fork_step=int(rows.steps[0]))],
        discarded_from={},
        known_incidents=[KnownIncident(f"marked {first}", first, last) for first, last in marked_ranges(rows)],
        num_available=len(all_rows),
        truth="the column truth" if TRUTH in rows.metrics else "",
    )


def marked_ranges(rows: Rows) -> list[tuple[int, int]]:
    """First and last step of each run of rows in which the column truth is not 0."""
    if TRUTH not in rows.metrics:
        return []
    marked = np.nan_to_num(rows.metrics[TRUTH], nan=0.0) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(rows.steps[start]), int(rows.steps[end - 1])) for start, end in edges.reshape(-1, 2)]
