"""Recorded first steps of a restore, which a new segment computes again."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import Run, Segment
from db.steps.codec import DamagedBlock
from db.steps.reader import next_block
from lossguard.vocabulary.metrics import DETECTOR_INPUTS
from lossguard.vocabulary.states import SPOIL_LOSSES
from monitor.detection import Rows
from monitor.detection.scoring.detectors import SHIFT_EVENTS
from monitor.detection.scoring.recomputed_steps import first_doubtful_step
from monitor.ingestion.columns import stored_rows

MAX_STEPS = 128
"""Stored steps that are read, because not each of them need have a loss."""


@dataclass(frozen=True, slots=True)
class RecordedRows:
    """`rows`: None where there is nothing to compare with; those from step `doubtful_from` on are no reference."""

    rows: Rows | None = None
    doubtful_from: int | None = None


def before(session: Session, run: Run, segment: Segment, step: int) -> RecordedRows:
    """The first rows from `step` on of the newest segment that computed them from the same state.

    Nothing where the segment goes on where the last one ended, where the rows were lost with their spool, or where an
    order has changed the updates since.
    """
    earlier = queries.newest_record_of(session, run=run, segment=segment)
    if earlier is None or _updates_changed(session, run, step, earlier, segment):
        return RecordedRows()
    step_range = StepRange(earlier.number, step, None)
    try:
        block = next_block(session, run_pk=run.pk, step_range=step_range, metrics=DETECTOR_INPUTS, max_steps=MAX_STEPS)
    except DamagedBlock:  # nothing to compare with; the detection's own history says it in the log
        return RecordedRows()
    if block is None:
        return RecordedRows()
    troubles = [
        (incident.onset_step, incident.detected_step)
        for incident in queries.incidents_after(session, run=run, step=step)
        if incident.kind in SPOIL_LOSSES and (incident.end_step is None or incident.segment == earlier.number)
    ]
    rows = stored_rows(block)
    # A change that the loop announced is no more sure: it may not make it again.
    events = queries.events(session, run=run, steps=(step, int(rows.steps[-1]) + 1))
    declared = [each.step for each in events if each.segment == earlier.number and each.kind in SHIFT_EVENTS]
    ends = (each for each in (first_doubtful_step(troubles), *declared) if each is not None)
    return RecordedRows(rows, min(ends, default=None))


def _updates_changed(session: Session, run: Run, step: int, earlier: Segment, segment: Segment) -> bool:
    """True if an order has changed the updates from `step` on, since these rows were recorded."""
    first = earlier.number if earlier.fork_step == step else earlier.number + 1
    orders = queries.orders_between(session, run=run, first=first, before=segment.number)
    return any(order.lr_scale is not None or order.remedies for order in orders)
