"""What the detector lab tries its settings on: the rows of a stored run as it was lived, or an uploaded curve.

A run is taken with its discarded branches, segment by segment, so that what was rolled back is there to be found again.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import streamlit as st

from dashboard import formatting
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import rows_of, within
from dashboard.data.store import database_url, open_store
from db import lineage
from db.lineage import StepRange
from db.steps import reader
from monitor.detection import DetectionSettings, Rows
from monitor.detection.curve import COLUMNS, parse_curve
from monitor.detection.simulation import ScoredSegment, SegmentRows, score

MOST = 100_000
"""Rows that are tried at once."""
TRUTH = "truth"
"""Column of a curve that is not 0 where there is trouble."""
FAULT = re.compile(r"(\w+)@([0-9]{1,15})(?:x([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is known to have been there, on steps [first, last]."""

    name: str
    first: int
    last: int
    segment: int | None = None
    """None: on whichever segment."""


@dataclass(frozen=True, slots=True)
class Specimen:
    key: str
    """Tells it from every other one."""
    strands: Sequence[SegmentRows]
    left: Mapping[int, int]
    """By segment, the first step that is not on the live line any more; a segment of the live line's end has none."""
    troubles: Sequence[Trouble] = ()
    total: int = 0
    """Rows that there are, whether taken or not."""
    note: str = ""
    """Against what the troubles are told."""

    @property
    def num_rows(self) -> int:
        return sum(len(strand.rows) for strand in self.strands)


def scored(specimen: Specimen, settings: DetectionSettings) -> Sequence[ScoredSegment]:
    """The long part, kept for the settings that were asked for last, for all viewers together."""
    return _scored(specimen.key, astuple(settings), specimen, settings)


@st.cache_resource(show_spinner="Judging every step ...", max_entries=6)
def _scored(
    key: str, numbers: tuple[float, ...], _specimen: Specimen, _settings: DetectionSettings
) -> Sequence[ScoredSegment]:
    return score(_specimen.strands, _settings)


def of_run(known: RunFacts, steps: tuple[int, int]) -> Specimen:
    """The run's rows in these steps, first and last; of more than MOST the newest."""
    seen = tuple((one.number, one.num_steps) for one in known.segments)
    return _of_run(database_url(), known.run.id, seen, steps, known)


@st.cache_resource(show_spinner="Reading the run ...", max_entries=4)
def _of_run(
    url: str, run_id: str, seen: tuple[tuple[int, int], ...], steps: tuple[int, int], _known: RunFacts
) -> Specimen:
    first, last = newest(_known, steps)
    strands = []
    with open_store(url) as session:
        for one in _known.segments:
            line = within([StepRange(one.number, one.fork_step or 0, None)], first, last + 1)
            rows = rows_of(reader.columns(session, run=_known.run, line=line, metrics=COLUMNS))
            told = lineage.declared(_known.segments, _known.events, line, first, last + 1)
            fork = one.fork_step or 0
            strands.append(SegmentRows(rows, one.number, one.parent, max(fork, first), one.reason, told))
    return Specimen(
        f"{url} {run_id} {seen} {first}-{last}",
        [strand for strand in strands if len(strand.rows)],
        {branch.segment: branch.first for branch in lineage.discarded(_known.segments)},
        *_known_troubles(_known, strands),
    )


def newest(known: RunFacts, steps: tuple[int, int]) -> tuple[int, int]:
    """These steps, cut at the front so that there are no more than MOST rows in all segments together."""
    first, last = steps
    ends = [(one.fork_step or 0, one.last_step) for one in known.segments if one.last_step is not None]
    while sum(max(0, min(last, end) - max(first, start) + 1) for start, end in ends) > MOST and first < last:
        first += max(1, (last - first) // 64)
    return first, last


def _known_troubles(known: RunFacts, strands: Sequence[SegmentRows]) -> tuple[list[Trouble], int, str]:
    """The faults that the configuration names as planted, else the incidents that the run had; of how many rows."""
    total = sum(one.num_steps for one in known.segments)
    planted = [fault for text in _listed(known, "faults") if (fault := FAULT.fullmatch(text))]
    if planted:
        in_data = _listed(known, "faults_in_data" if "faults_in_data" in known.run.config else "faults")
        by_batch = () if known.run.config.get("faults_at_steps") else in_data
        found = [each for fault in planted for each in _planted(fault, strands, fault[0] in by_batch)]
        return found, total, "the faults that were planted"
    own = [
        Trouble(
            f"incident {one.number}: {formatting.incident_kind(one.kind)}",
            one.onset_step,
            one.end_step or one.detected_step,
            one.segment,
        )
        for one in known.incidents
        if one.kind != "plateau"
    ]
    return own, total, "the run's own incidents"


def _listed(known: RunFacts, name: str) -> list[str]:
    told = known.run.config.get(name)
    return [str(each) for each in told] if isinstance(told, list) else []


def _planted(fault: re.Match[str], strands: Sequence[SegmentRows], by_batch: bool) -> Iterator[Trouble]:
    """Where the run first came to the fault's step; `by_batch`: to the batch of that number, where it logs batches."""
    first, count = int(fault[2]), int(fault[3] or 1)
    for strand in strands:
        batches = strand.rows.metrics.get("batch_index") if by_batch else None
        where = strand.rows.steps if batches is None else batches
        hit = strand.rows.steps[(where >= first) & (where < first + count)]
        if len(hit):
            yield Trouble(fault[0], int(hit[0]), int(hit[-1]), strand.number)
            return


def of_curve(name: str, content: bytes) -> Specimen:
    """An uploaded CSV file. Raises CurveError."""
    text = content.decode("utf-8-sig", errors="replace")
    rows = parse_curve(name, text.splitlines(), also=[TRUTH])
    taken = rows[max(0, len(rows) - MOST) :]
    troubles = [Trouble(f"marked {first}", first, last) for first, last in marked(taken)]
    note = "the column truth" if TRUTH in rows.metrics else ""
    strand = SegmentRows(taken, fork_step=int(taken.steps[0]))
    return Specimen(hashlib.sha256(content).hexdigest(), [strand], {}, troubles, len(rows), note)


def marked(rows: Rows) -> list[tuple[int, int]]:
    """First and last step of each stretch where the column truth is not 0."""
    if TRUTH not in rows.metrics:
        return []
    bad = np.nan_to_num(rows.metrics[TRUTH], nan=0.0) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(np.int8)))
    return [(int(rows.steps[start]), int(rows.steps[end - 1])) for start, end in edges.reshape(-1, 2)]
