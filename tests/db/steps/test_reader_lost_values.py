"""Values that somebody dropped are missed, never taken for values that were not reported."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from db.lineage import StepRange
from db.models import BlockValues, Metric, Run
from db.steps import reader
from db.steps.archived import files
from db.steps.archived.places import Place
from db.steps.codec import DamagedBlock
from db.steps.step_block import RunRange, StepBlock
from db.store.engine import reading, writing
from tests.db.archive.stored import archive
from tests.db.seed import add_run, add_segment, add_steps, end_run

MISSING = r"the values of lr of run .r1., segment 0, steps 0 to (1999|1791), are missing; restore the store"


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    """With a run of 2,000 steps, of which the first 1,000 have a value of val_loss."""
    with writing(engine) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(1000), lr=[0.1] * 1000, val_loss=[1.0] * 1000)
        add_steps(session, run, segment, range(1000, 2000), lr=[0.1] * 1000)
        end_run(session, run)
    return engine


def delete_values(engine: sa.Engine, metric: str) -> None:
    with writing(engine) as session:
        number = sa.select(Metric.number).where(Metric.name == metric).scalar_subquery()
        session.execute(sa.delete(BlockValues).where(BlockValues.metric == number))


def read_from(engine: sa.Engine, first: int) -> StepBlock:
    with reading(engine) as session:
        (run,) = session.scalars(sa.select(Run.pk))
        ranges = [RunRange(run, StepRange(0, first, 2000))]
        (found,) = reader.read_ranges(session, ranges=ranges, with_times=False, metrics=["lr", "val_loss"])
    return found


def test_a_metric_that_is_reported_for_a_part_of_the_steps_is_not_missed_in_the_others(store: sa.Engine) -> None:
    found = read_from(store, 1000).metrics
    assert found["lr"].reported.all()
    assert not found["val_loss"].reported.any()


def test_a_metric_whose_values_are_gone_is_named(store: sa.Engine) -> None:
    delete_values(store, "lr")
    with pytest.raises(DamagedBlock, match=MISSING):
        read_from(store, 0)


def test_steps_without_their_values_are_not_archived(store: sa.Engine, tmp_path: Path) -> None:
    delete_values(store, "lr")
    with pytest.raises(DamagedBlock, match=MISSING):
        archive(store, Place(str(tmp_path)))
    with reading(store) as session:
        assert not files.places(session)
