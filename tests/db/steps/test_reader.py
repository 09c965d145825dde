"""Steps come back in blocks of any size, in ranges and along lines, every value to the last bit."""

import re
import uuid
from pathlib import Path

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import Run
from db.steps.reader import MAX_RANGES, read_blocks, read_line, read_ranges
from db.steps.reader import __file__ as reader_file
from db.steps.step_block import RunRange, StepBlock
from db.store import bulk
from db.store.engine import reading, writing
from tests.db.seed import add_run, add_segment, add_steps

numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
RULES = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
risen = st.lists(st.integers(0, 40), min_size=1, max_size=25, unique=True).map(sorted)
columns = st.lists(numbers, min_size=25, max_size=25)
names = st.sampled_from(["loss", "eval/loss", 'quote"d', "segment"])


def values_of(blocks: list[StepBlock], name: str) -> list[tuple[int, float | None]]:
    """(step, value) in order, None where the metric was not reported."""
    return [
        (step, value if reported else None)
        for block in blocks
        for step, value, reported in zip(
            block.steps.tolist(),
            block.metrics[name].values.tolist(),
            block.metrics[name].reported.tolist(),
            strict=True,
        )
    ]


@RULES
@given(steps=risen, column=columns, name=names, max_steps=st.integers(1, 9))
def test_blocks_of_any_size_hold_every_value_to_the_last_bit(
    engine: sa.Engine, steps: list[int], column: list[float | None], name: str, max_steps: int
) -> None:
    column = column[: len(steps)]
    with writing(engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        add_steps(session, run, add_segment(session, run, "a"), steps, **{name: column})
        step_range = StepRange(0, 2, 37)
        blocks = list(read_blocks(session, run_pk=run.pk, step_range=step_range, metrics=[name], max_steps=max_steps))
    assert all(len(block) == max_steps for block in blocks[:-1])
    wanted = [(step, value) for step, value in zip(steps, column, strict=True) if 2 <= step < 37]
    assert str(values_of(blocks, name)) == str(wanted)


@RULES
@given(steps=risen, column=columns, name=names, cuts=st.lists(st.integers(0, 41), max_size=6).map(sorted))
def test_ranges_that_are_read_together_hold_what_each_holds_alone(
    engine: sa.Engine, steps: list[int], column: list[float | None], name: str, cuts: list[int]
) -> None:
    ends = zip([0, *cuts], [*cuts, 41], strict=True)
    ranges = [StepRange(segment, low, high) for low, high in ends for segment in (1, 0)]
    with writing(engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        add_steps(session, run, add_segment(session, run, "a"), steps, **{name: column[: len(steps)]})
        add_steps(session, run, add_segment(session, run, "b", fork_step=3), [3, 5], **{name: [1.0, None]})
        of_run = [RunRange(run.pk, one) for one in ranges]
        together = read_ranges(session, ranges=of_run, metrics=[name, "lr"])
        alone = [read_ranges(session, ranges=[one], metrics=[name, "lr"])[0] for one in of_run]
    assert [block.segment for block in together] == [one.segment for one in ranges]
    assert [str(values_of([block], name)) for block in together] == [str(values_of([block], name)) for block in alone]
    assert sum(map(len, together)) == len(steps) + 2
    assert not any(block.metrics["lr"].reported.any() for block in together)


def test_more_ranges_than_one_statement_takes_are_all_read(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(2 * MAX_RANGES + 1))
    ranges = [RunRange(run.pk, StepRange(0, step, step + 1)) for step in range(2 * MAX_RANGES + 1)]
    blocks = read_ranges(session, ranges=ranges, metrics=["loss"])
    assert [block.steps.tolist() for block in blocks] == [[step] for step in range(2 * MAX_RANGES + 1)]


def test_a_line_is_read_as_one_and_leaves_out_a_metric_that_it_never_reported(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(9), loss=[1.0] * 9, lr=[None] * 5 + [0.1] * 4)
    add_steps(session, run, add_segment(session, run, "b", fork_step=5), range(5, 8), loss=[2.0] * 3)
    line = read_line(session, run=run, line=queries.live(session, run=run), metrics=["loss", "lr"])
    nothing = read_line(session, run=run, line=[], metrics=["loss"])
    assert line.steps.tolist() == list(range(8))
    assert line.metrics["loss"].values.tolist() == [1.0] * 5 + [2.0] * 3
    assert list(line.metrics) == ["loss"]
    assert (len(nothing.steps), nothing.metrics) == (0, {})


def test_a_block_longer_than_a_chunk_of_rows_is_whole(engine: sa.Engine) -> None:
    num_steps = 2 * bulk.CHUNK_ROWS + 3
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(num_steps))
        (block,) = read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=["loss"])
    assert block.metrics["loss"].values.tolist() == [float(step) for step in range(num_steps)]


def test_a_metric_of_one_step_is_what_was_reported(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        reported = {"loss": [float("-inf")], "tokens": [7.0], "eval/loss": [0.1], "eval/acc": [float("inf")]}
        add_steps(session, run, add_segment(session, run, "a"), [0], **reported)
    with reading(engine) as session:
        step = queries.newest_step(session, run=run)
        assert step is not None
        found = {name: step.metrics.get(name) for name in (*reported, "lr", "never")}
    assert found == {name: value for name, (value,) in reported.items()} | {"lr": None, "never": None}
    assert isinstance(found["tokens"], int)


def test_only_db_steps_reads_the_rows_of_steps_so_that_nobody_forgets_the_blocks() -> None:
    root = Path(reader_file).parents[2]
    direct = re.compile(r"(FROM|JOIN|INTO|UPDATE) steps\b|\bmodels import [^\n]*\bStep\b|^    Step,$", re.MULTILINE)
    found = [
        path.relative_to(root).as_posix()
        for folder in ("db", "monitor", "dashboard", "benchmarks")
        for path in (root / folder).rglob("*.py")
        if direct.search(path.read_text(encoding="utf-8"))
    ]
    outside = [path for path in found if not path.startswith(("db/steps/", "db/migrations/"))]
    assert outside == [], "use db.steps.reader"
    assert len(found) > 1
