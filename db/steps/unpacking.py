"""Make rows of all blocks again, with the roll-ups that belong to rows: before a downgrade to a release without blocks.

It reads the tables as revision 0020 of the schema has them.
"""

from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Step
from db.steps import blocks, filling, rollups
from db.steps.step_block import RunRange
from db.steps.writer import table_of
from db.store import bulk


def unpack_all(session: Session) -> None:
    """Segment by segment."""
    chosen = "SELECT run_pk, number FROM segments WHERE has_blocks OR num_packed > 0"
    for run_pk, segment in bulk.read(session, chosen, ()):
        _unpack(session, run_pk, segment)
        bulk.run(session, "DELETE FROM rollups WHERE run_pk = ? AND segment = ?", (run_pk, segment))
        filling.fill_in_segment(session, run_pk, segment)


def _unpack(session: Session, run_pk: int, segment: int) -> None:
    names = list(rollups.metric_numbers(session, run_pk=run_pk))
    of_segment = (run_pk, segment)
    found = bulk.read(
        session, "SELECT first_step, last_step FROM step_blocks WHERE run_pk = ? AND segment = ?", of_segment
    )
    for first, last in found:
        (steps,) = blocks.read_blocks(session, [RunRange(run_pk, StepRange(segment, first, last + 1))], names)
        metrics = {name: column for name, column in steps.metrics.items() if column.reported.any()}
        bulk.insert(session, Step, table_of(run_pk, segment, steps.steps.tolist(), steps.times.tolist(), metrics))
    for table in ("block_values", "step_blocks"):
        bulk.run(session, f"DELETE FROM {table} WHERE run_pk = ? AND segment = ?", of_segment)
