"""Values that the roll-ups count and the blocks lack: somebody dropped a partition, or rows of `block_values`.

A block does not say which metrics its steps have, so without them they would read as never reported.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db.steps.block_codec import DamagedBlock
from db.steps.levels import FINEST, width
from db.steps.step_block import RunRange, StepBlock
from db.store import bulk

COUNTED = (
    "SELECT runs.id, metrics.name FROM metrics JOIN runs ON pk = run_pk WHERE run_pk = ? AND metrics.name IN ({names})"
    " AND EXISTS (SELECT 1 FROM rollups WHERE rollups.run_pk = metrics.run_pk AND segment = ? AND metric = number"
    f" AND level = {FINEST} AND start >= ? AND start < ?) ORDER BY number LIMIT 1"
)
"""A metric among names that has a value in a whole bucket of a range."""


def check(session: Session, found: Sequence[tuple[RunRange, StepBlock]]) -> None:
    """Check what the blocks hold of ranges without rows. Only a metric without any value there costs a query.

    Raises DamagedBlock where a whole bucket of the roll-ups has a value of it.
    """
    size = width(FINEST)
    for (run_pk, steps), block in found:
        absent = [name for name, column in block.metrics.items() if not column.reported.any()]
        if not (absent and len(block)):
            continue
        first, last = int(block.steps[0]), int(block.steps[-1])
        low, high = -(-first // size) * size, (last + 1) // size * size
        if low < high:
            statement = COUNTED.format(names=", ".join("?" * len(absent)))
            for run_id, name in bulk.read(session, statement, (run_pk, *absent, steps.segment, low, high)):
                raise missing(run_id, name, steps.segment, first, last)


def missing(run_id: str, metric: str, segment: int, first: int, last: int) -> DamagedBlock:
    """The error that names the values, and what to do."""
    return DamagedBlock(
        f"the values of {metric} of run {run_id!r}, segment {segment}, steps {first} to {last}, are missing; restore "
        "the store from a backup, or delete the run"
    )
