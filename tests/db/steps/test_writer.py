"""Checks of what the store adds to a step, and of the steps that it knows."""

import math

import pytest
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run
from db.steps import reader, writer
from tests.db.seed import add_segment, add_steps


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
