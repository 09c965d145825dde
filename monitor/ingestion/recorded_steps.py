"""What was recorded at the first steps that a new segment computes again."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import Order, Run, Segment
from db.steps.reader import next_block
from lossguard.metrics import DETECTOR_INPUTS
from lossguard.states import IncidentKind
from monitor.detection import Rows
from monitor.detection.scoring.recomputed_steps import MAX_ROWS, first_doubtful_step
from monitor.ingestion.columns import stored_rows

LOSS_INCIDENTS = (
    IncidentKind.NONFINITE,
    IncidentKind.LOSS_SPIKE,
    IncidentKind.DIVERGENCE,
    IncidentKind.LOSS_COLLAPSE,
)
"""Kinds of incidents whose losses are no reference for steps that are computed again."""


@dataclass(frozen=True, slots=True)
class Record:
    """`rows`: None where there is nothing to compare with; those from step `doubtful_from` on are no reference."""

    rows: Rows | None = None
    doubtful_from: int | None = None


def before(session: Session, run: Run, segment: Segment, step: int) -> Record:
    """The first rows from `step` on of the newest segment before this one that has such rows.

    Nothing where the segment goes on where the last one ended, where the rows were lost with their spool, or where an
    order had changed the updates from this very step on.
    """
    earlier = queries.newest_segment_at(session, run=run, step=step, before=segment.number)
    if earlier is None or (earlier.fork_step == step and _changed_updates(session, earlier)):
        return Record()
    step_range = StepRange(earlier.number, step, None)
    block = next_block(
        session, run_pk=run.pk, step_range=step_range, metrics=DETECTOR_INPUTS, low=step, max_steps=MAX_ROWS
    )
    troubles = [
        (incident.onset_step, incident.detected_step)
        for incident in queries.incidents_after(session, run=run, step=step)
        if incident.kind in LOSS_INCIDENTS and (incident.end_step is None or incident.segment == earlier.number)
    ]
    return Record(None if block is None else stored_rows(block), first_doubtful_step(troubles))


def _changed_updates(session: Session, segment: Segment) -> bool:
    order = None if segment.order_id is None else session.get(Order, segment.order_id)
    return order is not None and (order.lr_scale is not None or bool(order.remedies))
