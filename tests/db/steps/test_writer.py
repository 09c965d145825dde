"""Steps read the same whether they are rows or blocks, however they came."""

import math
import random
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import frames, queries
from db.lineage import Line, StepRange
from db.models import BlockValues, Run, Step, StoredBlock
from db.steps import backlog, blocks, reader, step_times, writer
from db.steps.codec import DamagedBlock
from db.steps.step_block import RunRange
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_run, add_segment, add_steps, end_run
from tests.db.steps.plain_series import Value, assert_same, plain_loop

RULES = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True).map(lambda value: value or 0.0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of steps becomes a block."""
    for module, name, value in (
        (writer, "PACK_AT", 7),
        (writer, "MAX_BLOCK_STEPS", 12),
        (writer, "SMALL", 3),
        (step_times, "SMALL", 3),
        (blocks, "MANY", 2),
        (backlog, "MIN_ROWS", 1),
    ):
        monkeypatch.setattr(module, name, value)


def count(session: Session, table: type[Step | StoredBlock | BlockValues]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def parts_of(steps: list[int], seed: int) -> Iterator[list[int]]:
    """The steps in reports of any size, in any order."""
    shuffle = random.Random(seed)
    parts = []
    while steps:
        size = shuffle.choice([1, 1, 2, 3, 8, 20])
        parts.append(steps[:size])
        steps = steps[size:]
    for at in range(len(parts) - 1):
        if shuffle.random() < 0.3:
            parts[at], parts[at + 1] = parts[at + 1], parts[at]
    if parts and shuffle.random() < 0.3:
        parts.append(parts.pop(0))
    yield from parts


@RULES
@given(
    steps=st.lists(st.integers(0, 90), min_size=1, max_size=70, unique=True).map(sorted),
    seed=st.integers(0, 10**6),
    column=st.lists(numbers, min_size=70, max_size=70),
    window=st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
@pytest.mark.usefixtures("small_blocks")
def test_reports_of_any_size_and_order_read_the_same_in_rows_and_in_blocks(
    sqlite_engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[int],
    seed: int,
    column: list[float | None],
    window: tuple[int, int],
) -> None:
    values: dict[int, Value] = dict(zip(steps, column, strict=False))
    with writing(sqlite_engine) as session:
        runs = []
        for pack_at in (7, 1000):
            monkeypatch.setattr(writer, "PACK_AT", pack_at)
            run = add_run(session, uuid.uuid4().hex)
            segment = add_segment(session, run, "a")
            for part in parts_of(steps, seed):
                add_steps(session, run, segment, part, loss=[values[step] for step in part], tokens=part)
            assert writer.known_steps(session, run=run, segment=0, steps=[*steps, 91]) == set(steps)
            assert segment.num_packed == 0 or pack_at == 7
            runs.append(run)
        packed, rows = (frames.steps(session, run=run, line=Line.ALL) for run in runs)
        assert packed.equals(rows)
        assert packed.index.tolist() == steps
        first, last = sorted(window)
        line = [StepRange(0, 0, None)]
        for points in (1, 3, 200):
            one, other = (
                queries.series(session, run=run, step_ranges=line, metric="loss", first=first, last=last, points=points)
                for run in runs
            )
            assert_same(one, other)
        assert_same(one, plain_loop(values, first, last, 1))
        for run in runs:
            at = steps[len(steps) // 2]
            assert queries.times(session, run=run, step_ranges=line, steps=[at]) == {at: NOW + at}
            _, newest_times = queries.newest_times(session, run=run, count=5)
            assert [step for step, _ in newest_times] == steps[-5:]


def test_a_report_of_many_steps_is_a_block_at_once_and_single_steps_become_one(session: Session, run: Run) -> None:
    segment = add_segment(session, run, "a")
    add_steps(session, run, segment, range(1000))
    assert (count(session, Step), count(session, StoredBlock)) == (0, 1)
    for step in range(1000, 1000 + writer.PACK_AT - 1):
        add_steps(session, run, segment, [step])
    assert (count(session, Step), count(session, StoredBlock)) == (writer.PACK_AT - 1, 1)
    add_steps(session, run, segment, [999 + writer.PACK_AT])
    assert (count(session, Step), count(session, StoredBlock)) == (0, 2)
    assert segment.num_packed == segment.num_steps == 1000 + writer.PACK_AT


def test_numbers_come_back_from_a_block_bit_for_bit_and_counts_whole(engine: sa.Engine) -> None:
    strange = np.array([-0.0, 5e-324, math.pi, math.inf, -math.inf, math.nan, 1e308, 0.1] * 128)
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(1024), odd=strange.tolist(), tokens=[7.5] * 1024)
    with reading(engine) as session:
        (block,) = reader.read_ranges(
            session, ranges=[RunRange(run.pk, StepRange(0, 0, None))], metrics=["odd", "tokens"]
        )
    assert block.metrics["odd"].values.tobytes() == strange.tobytes()
    assert block.metrics["odd"].reported.all()
    assert set(block.metrics["tokens"].values.tolist()) == {7.0}


def test_the_rest_of_a_run_is_packed_when_it_ends(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(700))
    add_steps(session, run, add_segment(session, run, "b", fork_step=600), range(600, 640))
    end_run(session, run)
    assert count(session, Step) == 0
    assert [each.num_packed for each in queries.segments(session, run=run)] == [700, 40]


def test_the_damaged_one_of_many_blocks_is_named_whatever_of_it_is_damaged(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        steps = range(0, 4096, 2)  # their numbers are stored
        add_steps(session, run, add_segment(session, run, "a"), steps)
    named = (
        r"run 'r1', segment 0, steps 2048 to 4094, is damaged: .*; restore the store from a backup, or delete the ru"
    )
    line = [StepRange(0, 0, None)]
    reads: dict[str, list[Callable[[Session], object]]] = {
        "block_values.values": [lambda session: frames.steps(session, run=run)],
        "step_blocks.times": [
            lambda session: frames.steps(session, run=run),
            lambda session: queries.newest_times(session, run=run, count=1500),
            lambda session: queries.times(session, run=run, step_ranges=line, steps=[2500]),
        ],
        "step_blocks.steps": [lambda session: writer.known_steps(session, run=run, segment=0, steps=[2500])],
    }
    for place, some in reads.items():
        table, column = place.split(".")
        with engine.connect() as connection:
            damage = sa.text(f'UPDATE {table} SET "{column}" = :cut WHERE first_step = 2048')
            connection.execute(damage, {"cut": b"\x01cut"})
            session = Session(connection)
            for read in some:
                with pytest.raises(DamagedBlock, match=named):
                    read(session)
            session.close()
            connection.rollback()


def test_the_perplexity_is_added_and_does_not_overflow(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), [0, 1, 2], loss=[1.0, 5000.0, math.nan])
    (block,) = reader.read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=["perplexity"])
    assert block.metrics["perplexity"].reported.tolist() == [True, False, False]
    assert block.metrics["perplexity"].values[0] == pytest.approx(math.e)


def test_a_perplexity_that_a_loop_reports_is_kept(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), [0], loss=[1.0], perplexity=[3.0])
    (block,) = reader.read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=["perplexity"])
    assert block.metrics["perplexity"].values.tolist() == [3.0]


def test_known_steps_are_those_of_one_segment(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), [5, 6, 9])
    assert writer.known_steps(session, run=run, segment=0, steps=[6, 7, 9, 10]) == {6, 9}
    assert writer.known_steps(session, run=run, segment=1, steps=[6]) == set()
