"""Make the roll-ups of a store whose steps are all rows and that has none: migrations call it.

It reads only what revision 0002 of the schema has, and writes every level, as a release without blocks needs them.
"""

import json
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.steps import levels, loose_rows, rollups
from db.steps.rollups import Target
from db.steps.step_block import RunRange, StepBlock, end_of
from db.store import bulk
from lossguard.vocabulary.metrics import COLUMNS


def fill_in(session: Session, max_steps: int = 50_000) -> None:
    """Make the roll-ups of all segments, at most `max_steps` steps in memory."""
    for run_pk, segment in bulk.read(session, "SELECT run_pk, number FROM segments", ()):
        fill_in_segment(session, run_pk, segment, max_steps)


def fill_in_segment(session: Session, run_pk: int, segment: int, max_steps: int = 50_000) -> None:
    """The same for one of them."""
    names = _reported_names(session, run_pk, segment)
    numbers = rollups.metric_numbers(session, run_pk=run_pk, names=names)
    target = Target(run_pk, segment, numbers, levels.finest_level(has_blocks=False), _read_values)
    before: int | None = None
    for block in _blocks(session, run_pk, segment, names, max_steps):
        rollups.grow(session, target, block, before=before)
        before = int(block.steps[-1])


def _blocks(session: Session, run_pk: int, segment: int, names: Sequence[str], max_steps: int) -> Iterator[StepBlock]:
    rest = StepRange(segment, 0, None)
    while found := loose_rows.first_rows(session, run_pk, rest, rest.first, max_steps):
        yield from loose_rows.read_rows(session, [RunRange(run_pk, found[0])], names)
        rest = StepRange(segment, end_of(found[0]), None)


def _read_values(session: Session, *, ranges: Sequence[RunRange], metrics: Sequence[str]) -> list[StepBlock]:
    return loose_rows.read_rows(session, ranges, metrics)


def _reported_names(session: Session, run_pk: int, segment: int) -> list[str]:
    """The metrics that a segment's steps have. A column that a later migration adds is not there yet."""
    table = own_columns(session)
    own = [name for name in COLUMNS if name in table]
    where = "FROM steps WHERE run_pk = ? AND segment = ?"
    counts = ", ".join(f"count({name})" for name in bulk.quoted(own))
    (found,) = bulk.read(session, f"SELECT {counts} {where}", (run_pk, segment))
    names = {name for name, count in zip(own, found, strict=True) if count}
    texts = f"{bulk.json_text(session, 'extra')}, {bulk.json_text(session, 'non_finite')}"
    for rows in bulk.read_chunks(session, f"SELECT {texts} {where}", (run_pk, segment)):
        for text in {text for row in rows for text in row if text}:
            names |= json.loads(text).keys() - (COLUMNS.keys() - table)
    return [name for name in own if name in names] + sorted(names - set(own))


def own_columns(session: Session) -> set[str]:
    """The columns that the table of steps has at this revision of the schema."""
    return {column["name"] for column in sa.inspect(session.connection()).get_columns("steps")}
