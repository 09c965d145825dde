"""The perplexity of a bucket says what its loss says."""

import math

import pytest
import sqlalchemy as sa

from dashboard.data.curve_reader import CurveReader
from dashboard.data.perplexity import perplexity
from db import queries
from db.lineage import StepRange
from db.queries import Series
from db.store.engine import reading, writing
from tests.db.seed import add_run, add_segment, add_steps

LOSSES = [2.0] * 31 + [100.0]


def test_the_perplexity_of_a_bucket_is_exp_of_its_mean_loss() -> None:
    loss = Series([0, 8], [7, 15], [1.0, None], [9.0, None], [2.0, None], [3.0, None], [8, 0], [0, 8], [1.0, None])
    found = perplexity(loss)
    assert (found.mean, found.min, found.max) == ([math.exp(2), None], [math.e, None], [math.exp(9), None])
    assert (found.first_step, found.count, found.non_finite) == (loss.first_step, loss.count, loss.non_finite)


def read(store: sa.Engine, metrics: list[str], points: int, **reported: list[float]) -> dict[str, Series]:
    with writing(store) as session:
        run = add_run(session, "r1")
        add_steps(session, run, add_segment(session, run, "a"), range(len(LOSSES)), **reported)
    with reading(store) as session:
        found = queries.run_named(session, run_id="r1")
        assert found is not None
        return CurveReader(session, found, None, points).series(metrics, [StepRange(0, 0, None)])


def test_a_bucketed_perplexity_does_not_contradict_the_loss_beside_it(store: sa.Engine) -> None:
    found = read(store, ["perplexity"], 1, loss=LOSSES)
    assert list(found) == ["perplexity"]
    assert found["perplexity"].mean == pytest.approx([math.exp(sum(LOSSES) / len(LOSSES))])
    assert found["perplexity"].max == pytest.approx([math.exp(100.0)])


def test_without_a_loss_it_is_the_perplexity_that_was_reported(store: sa.Engine) -> None:
    found = read(store, ["perplexity", "lr"], 1, perplexity=LOSSES, lr=LOSSES)
    assert found["perplexity"].mean == pytest.approx([sum(LOSSES) / len(LOSSES)])
