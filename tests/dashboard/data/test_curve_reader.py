"""Perplexity and throughput, which are derived where a run does not report them."""

import math

import pytest
import sqlalchemy as sa

from dashboard.data.curve_reader import CurveReader, is_throughput_derivable, perplexity, throughput
from db.lineage import StepRange
from db.queries import Series
from db.store.engine import reading, writing
from tests.dashboard.seed import stored
from tests.dashboard.series import plain
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
        found = stored(session, "r1")
        return CurveReader(session, found, None, points).series(metrics, [StepRange(0, 0, None)])


def test_a_bucketed_perplexity_does_not_contradict_the_loss_beside_it(store: sa.Engine) -> None:
    found = read(store, ["perplexity"], 1, loss=LOSSES)
    assert list(found) == ["perplexity"]
    assert found["perplexity"].mean == pytest.approx([math.exp(sum(LOSSES) / len(LOSSES))])
    assert found["perplexity"].max == pytest.approx([math.exp(100.0)])


def test_without_a_loss_it_is_the_perplexity_that_was_reported(store: sa.Engine) -> None:
    found = read(store, ["perplexity", "lr"], 1, perplexity=LOSSES, lr=LOSSES)
    assert found["perplexity"].mean == pytest.approx([sum(LOSSES) / len(LOSSES)])


def test_it_is_tokens_over_time_between_neighbours() -> None:
    found = throughput(plain([100.0, 200.0, 400.0]), {0: 10.0, 1: 11.0, 2: 11.5})
    assert (found.last_step, found.mean) == ([1, 2], [100.0, 400.0])


def test_a_step_without_tokens_or_without_time_is_left_out_and_a_clock_that_stands_still_divides_nothing() -> None:
    found = throughput(plain([100.0, None, 300.0, 400.0]), {0: 10.0, 1: 11.0, 2: 12.0, 3: 12.0})
    assert (found.last_step, found.mean) == ([2], [100.0])


def test_it_is_not_derived_where_it_is_reported() -> None:
    assert is_throughput_derivable(["loss", "tokens"])
    assert not is_throughput_derivable(["tokens", "tokens_per_second"])
    assert not is_throughput_derivable(["loss"])
