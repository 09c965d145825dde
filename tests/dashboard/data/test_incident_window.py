"""The steps and batches that the pages read around an incident."""

import math

import pytest
import sqlalchemy as sa

from dashboard.data.incident_window import read_batch
from db import lineage, queries
from db.store.engine import reading, writing
from tests.dashboard.facts import facts_of
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize(
    ("batches", "batch"),
    [
        ([100.0, None, None, 203.0, None, None, None, None], 205),  # logged now and then
        ([100.0, None, None, None, None, 205.0, 206.0, 207.0], 205),
        ([None, None, None, math.nan, None, None, 206.0, 207.0], 5),
        ([None] * 8, 5),
    ],
)
def test_the_batch_of_a_checkpoint_follows_from_the_newest_batch_index_up_to_its_step(
    store: sa.Engine, batches: list[float | None], batch: int
) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(8), loss=[3.0] * 8, batch_index=batches)
    with reading(store) as session:
        segments = queries.segments(session, run=run)
        assert read_batch(session, facts_of(run, segments=segments), 5, lineage.live_line(segments)) == batch
