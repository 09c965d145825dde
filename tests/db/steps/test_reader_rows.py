"""A row gives back what its step reported, bit for bit, and a damaged row costs its own values only."""

import uuid

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run, Step
from db.steps import reader, rollups, writer
from db.steps.step_block import MetricColumn, RunRange, StepBlock, Target
from db.store.engine import writing
from tests.db.seed import add_run, add_segment, add_steps

NAMES = ["loss", "tokens", "eval/loss"]
bits = st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=6, max_size=6)  # NaNs with any payload among them


def column_of(given: list[int | None]) -> MetricColumn:
    values = np.array([0x7FF8 << 48 if each is None else each for each in given], dtype=np.uint64).view(np.float64)
    return MetricColumn.of_arrays(values, np.array([each is not None for each in given]))


def bits_of(column: MetricColumn) -> list[int | None]:
    found = zip(column.values.view(np.uint64).tolist(), column.reported.tolist(), strict=True)
    return [value if is_reported else None for value, is_reported in found]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(bits, min_size=3, max_size=3), read=st.permutations([*NAMES, "never"]), count=st.integers(0, 4))
def test_rows_hold_every_bit_of_what_was_reported_and_nothing_else(
    engine: sa.Engine, columns: list[list[int | None]], read: list[str], count: int
) -> None:
    given = dict(zip(NAMES, columns, strict=True))
    with writing(engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        numbers = rollups.metric_numbers(session, run_pk=run.pk, names=NAMES)
        metrics = {name: column_of(values) for name, values in given.items()}
        writer.insert_rows(session, Target(run.pk, 0, numbers), StepBlock(0, np.arange(6), np.arange(6) / 7, metrics))
        ranges = [RunRange(run.pk, StepRange(0, *bounds)) for bounds in ((1, 5), (5, None))]
        found = reader.read_rows(session, ranges, read[:count], {run.pk: numbers})
    assert [block.steps.tolist() for block in found] == [[1, 2, 3, 4], [5]]
    assert [block.times.tolist() for block in found] == [[step / 7 for step in range(1, 5)], [5 / 7]]
    for block, part in zip(found, (slice(1, 5), slice(5, 6)), strict=True):
        wanted = {name: given.get(name, [None] * 6)[part] for name in read[:count]}
        assert {name: bits_of(column) for name, column in block.metrics.items()} == wanted


@pytest.mark.parametrize("damage", [b"cut", b"\xff" * 12])
def test_a_damaged_row_loses_its_own_values_only(session: Session, run: Run, damage: bytes) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(3), loss=[1.0, 2.0, 3.0], lr=[0.1] * 3)
    session.execute(sa.update(Step).where(Step.step == 1).values(values=damage))
    numbers = {run.pk: rollups.metric_numbers(session, run_pk=run.pk)}
    (block,) = reader.read_rows(session, [RunRange(run.pk, StepRange(0, 0, None))], ["lr", "loss"], numbers)
    assert block.metrics["loss"].reported.tolist() == [True, False, True]
    assert block.metrics["loss"].values[[0, 2]].tolist() == [1.0, 3.0]
