"""The summary of a metric is that of all its values along the live line, whatever the roll-ups have of them."""

import math
import random

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import Run
from db.runs import overview
from db.steps.summaries import SPARKLINE_POINTS
from db.store.engine import writing
from tests.db.seed import add_run, add_segment, add_steps

LENGTHS = (1, 15, 33, 700, 3_000)


def test_summaries_of_many_runs_agree_with_their_live_steps(engine: sa.Engine) -> None:
    random_loss = random.Random(4)
    expected = {}
    with writing(engine) as session:
        for length in LENGTHS:
            run = add_run(session, f"r{length}")
            old = add_segment(session, run, "a")
            losses = [random_loss.random() for _ in range(length)]
            add_steps(session, run, old, range(length), loss=losses)
            fork = length // 2
            new = add_segment(session, run, "b", fork)
            later = [1 + random_loss.random() for _ in range(length)]
            add_steps(session, run, new, range(fork, fork + length), loss=later, mfu=[None] * (length - 1) + [0.5])
            expected[run.pk] = (losses[:fork] + later, fork + length, 2 * length)
        runs = queries.runs(session)
        found = overview.summaries(session, runs=runs, metrics=["loss", "mfu", "never reported"])
    for run in runs:
        summary, (losses, steps, stored) = found[run.pk], expected[run.pk]
        loss = summary.metrics["loss"]
        assert (summary.steps, summary.stored_steps) == (steps, stored)
        assert (loss.last, loss.min, loss.max) == (losses[-1], min(losses), max(losses))
        assert max(loss.sparkline) == max(losses)
        assert 0 < len(loss.sparkline) <= SPARKLINE_POINTS + 2
        assert summary.metrics["mfu"].last == 0.5
        assert set(summary.metrics) == {"loss", "mfu"}


@pytest.mark.parametrize(
    ("tail", "last"),
    [([math.nan], math.nan), ([math.inf], math.inf), ([math.nan, 2.0] + [None] * 900, 2.0), ([math.nan] * 5, math.nan)],
)
def test_the_last_value_is_as_it_was_reported_also_where_a_bucket_does_not_say(
    session: Session, run: Run, tail: list[float | None], last: float
) -> None:
    segment = add_segment(session, run, "a")
    values = [3.0] * 900 + tail
    add_steps(session, run, segment, range(len(values)), held_out_loss=values)
    summary = overview.summaries(session, runs=[run], metrics=["held_out_loss"])[run.pk]
    assert summary.metrics["held_out_loss"].last == pytest.approx(last, nan_ok=True)
    assert summary.metrics["held_out_loss"].max == 3.0


def test_a_run_without_steps_has_an_empty_summary(session: Session, run: Run) -> None:
    add_segment(session, run, "a")
    assert overview.summaries(session, runs=[run], metrics=["loss"]) == {run.pk: overview.RunSummary()}


def test_the_newest_steps_are_summed_up_alone_and_have_their_times(session: Session) -> None:
    runs = [add_run(session, run_id) for run_id in ("long", "sparse", "none")]
    for run, every in zip(runs, (1, 50), strict=False):
        segment = add_segment(session, run, run.id)
        add_steps(session, run, segment, range(0, 6000, every), loss=[float(-step) for step in range(0, 6000, every)])
    found = overview.newest(session, runs=runs, metrics=["loss"], num_steps=1000)
    plain = [[each.step for each in queries.newest_times(session, run=run)[1]] for run in runs]
    for run, steps in zip(runs[:2], plain, strict=False):
        summary, times = found[run.pk]
        assert summary.metrics["loss"].max == -5000.0
        assert [each.step for each in times] == steps
        assert times[-1].time == 1_000_000.0 + times[-1].step
    assert found[runs[2].pk] == (overview.RunSummary(), [])
