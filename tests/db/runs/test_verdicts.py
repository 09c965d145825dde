"""The verdict of a run: one word and one sentence from the level of the loss, not from flags of incidents."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from db import commands
from db.runs.verdicts import LASTING_STEPS, Losses, Trouble, VerdictInput, verdict_of, verdicts
from db.store.engine import writing
from lossguard.vocabulary.states import RunVerdict
from tests.db.seed import add_run, add_segment

HOUR = 3_600.0
QUIET = Losses([3.05] * 16, [(900, 3.07), (1_025, 3.06), (1_900, 3.05)])
RUN = VerdictInput(
    now=12 * HOUR, reported_at=12 * HOUR, step=1_900, losses=QUIET, in_band_since=0.0, restorable=[0, 1_800, 1_900]
)
SPIKE = Trouble(1, "loss_spike", "loss", 1_910, 3.05, 0.02)
DIVERGED = Losses([7.4, 7.44] * 8, [(1_900, 3.05), (2_400, 7.41), (3_375, 7.44)])
LOST = replace(RUN, step=3_380, losses=DIVERGED, troubles=[SPIKE])
REJECTED = replace(SPIKE, is_open=False)
"""Its proposal was rejected, and the detection took the level as the new baseline."""


def changed(run: VerdictInput, **values: Any) -> VerdictInput:
    return replace(run, **values)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (RUN, "Healthy: loss in band for 12 h, -0.02 in the last 1,000 steps"),
        (changed(RUN, step=None, losses=Losses()), "Healthy: no step yet"),
        (changed(RUN, losses=Losses()), "Not watched: the run reports no loss"),
        (LOST, "DIVERGED: loss 7.42, expected 3.05, for 1,470 steps. Roll back to 1,900?"),
        (
            changed(LOST, troubles=[REJECTED]),
            "DIVERGED: loss 7.42, expected 3.05, for 1,470 steps. Roll back to 1,900?",
        ),
        (changed(LOST, restorable=[]), "DIVERGED: loss 7.42, expected 3.05, for 1,470 steps"),
        (
            changed(LOST, rollback_to=1_800, proposed=True),
            "DIVERGED: loss 7.42, expected 3.05, for 1,470 steps. Roll back to 1,800?",
        ),
        (
            changed(LOST, rollback_to=1_800, ordered=True),
            "DIVERGED: loss 7.42, expected 3.05, for 1,470 steps. Rolling back to 1,800",
        ),
        (
            changed(RUN, step=1_940, losses=Losses([6.0] * 8 + [4.0] * 8), troubles=[SPIKE]),
            "Recovering: loss 4, expected 3.05, for 30 steps",
        ),
        (
            changed(RUN, rollback_to=1_800, verify_at=2_100),
            "Recovering: rolled back to 1,800, to be verified at step 2,100",
        ),
        (changed(LOST, held_since=12 * HOUR - 17 * 60), "HELD for 17 min: waits for you"),
        (
            changed(RUN, step_at=12 * HOUR - 1_380, troubles=[Trouble(2, "stall", "step_seconds", 1_900)]),
            "STALLED: no step for 23 min after step 1,900",
        ),
        (changed(LOST, is_collector_down=True), "Not watched: the collector is down, no spike is caught meanwhile"),
        (
            changed(RUN, is_silent=True, reported_at=12 * HOUR - 420),
            "Not watched: no report for 7.0 min; the process was killed, or cannot reach the collector",
        ),
        (changed(RUN, state="finished"), "Finished at step 1,900, loss 3.05"),
        (changed(LOST, state="finished"), "Ended with an open incident: loss 7.42, expected 3.05"),
        (changed(LOST, state="failed", troubles=[REJECTED]), "Ended diverged: loss 7.42, expected 3.05"),
        (
            changed(RUN, troubles=[Trouble(3, "grad_spike", "grad_norm", 1_880)]),
            "Healthy: loss in band for 12 h, -0.02 in the last 1,000 steps; but grad norm out of band since step 1,880",
        ),
    ],
)
def test_a_run_has_one_sentence(run: VerdictInput, sentence: str) -> None:
    assert verdict_of(run).sentence == sentence


@pytest.mark.parametrize(
    ("recent", "step", "verdict"),
    [
        ([3.05] * 13 + [3.9, 5.0, 7.0], 1_912, RunVerdict.DIVERGED),  # a spike that begins
        ([3.05] * 16, 1_960, RunVerdict.HEALTHY),  # back, although the incident is still open
        ([3.2] * 16, 1_960, RunVerdict.RECOVERING),
        ([3.2] * 16, 1_910 + LASTING_STEPS, RunVerdict.DIVERGED),  # a small rise that stays
    ],
)
def test_the_level_of_the_loss_decides(recent: Sequence[float], step: int, verdict: RunVerdict) -> None:
    run = replace(RUN, step=step, losses=Losses(recent), troubles=[SPIKE])
    assert verdict_of(run).verdict is verdict


def test_a_small_rise_is_a_new_normal_once_its_incident_is_closed() -> None:
    run = replace(RUN, step=2_500, losses=Losses([3.2] * 16), troubles=[REJECTED])
    assert verdict_of(run).verdict is RunVerdict.HEALTHY


VALUES = st.floats(min_value=-1e6, max_value=1e6) | st.sampled_from([math.nan, math.inf])
SITUATIONS = st.builds(
    replace,
    st.just(RUN),
    state=st.sampled_from(["running", "finished", "failed"]),
    is_silent=st.booleans(),
    is_collector_down=st.booleans(),
    step=st.none() | st.integers(0, 10**6),
    losses=st.builds(
        Losses, st.lists(VALUES, max_size=16), st.lists(st.tuples(st.integers(0, 10**6), VALUES), max_size=3)
    ),
    troubles=st.lists(
        st.builds(
            Trouble,
            st.just(1),
            st.sampled_from(["loss_spike", "nonfinite", "stall", "grad_spike"]),
            st.sampled_from(["loss", "grad_norm"]),
            st.integers(0, 10**6),
            st.none() | st.floats(-100, 100),
            st.floats(0, 1),
            st.booleans(),
        ),
        max_size=3,
    ),
    held_since=st.none() | st.just(0.0),
    proposed=st.booleans(),
    ordered=st.booleans(),
    rollback_to=st.none() | st.integers(0, 100),
    verify_at=st.none() | st.integers(0, 100),
)
WORDS: dict[RunVerdict, str | tuple[str, ...]] = {
    RunVerdict.HEALTHY: "Healthy",
    RunVerdict.RECOVERING: "Recovering",
    RunVerdict.DIVERGED: "DIVERGED",
    RunVerdict.HELD: "HELD",
    RunVerdict.STALLED: "STALLED",
    RunVerdict.UNWATCHED: "Not watched",
    RunVerdict.ENDED: ("Finished", "Failed"),
    RunVerdict.ENDED_OPEN: "Ended",
}


@given(SITUATIONS)
def test_every_run_has_one_verdict_and_a_nan_is_news(run: VerdictInput) -> None:
    found = verdict_of(run)
    assert found.sentence.startswith(WORDS[found.verdict])
    assert "\n" not in found.sentence
    assert (found.verdict in (RunVerdict.ENDED, RunVerdict.ENDED_OPEN)) is (run.state != "running")
    if run.losses.recent and not math.isfinite(run.losses.recent[-1]):
        assert found.verdict not in (RunVerdict.HEALTHY, RunVerdict.RECOVERING, RunVerdict.ENDED)


def test_an_incident_on_steps_that_were_rolled_back_is_no_longer_judged(sqlite_engine: sa.Engine) -> None:
    """Also where its whole segment was left: the run went back to before the first step of it."""
    with writing(sqlite_engine) as session:
        run = add_run(session)
        for number, fork in enumerate((0, 300)):
            segment = add_segment(session, run, str(number), fork_step=fork)
            segment.first_step, segment.last_step, segment.num_steps = fork, fork + 99, 100
        details = {"expected": 3.0, "scale": 0.02}
        commands.save_incident(
            session, run=run, number=1, segment=1, now=50.0, kind="loss_spike", state="open", signal="loss",
            onset_step=350, detected_step=352, peak_step=360, end_step=None, score=3.0, outcome="ongoing",
            details=details,
        )  # fmt: skip
        status = commands.run_status_of(session, run=run, now=run.last_report_at)
        status.step, status.losses = 399, {"recent": [7.0] * 16, "marks": []}
        assert verdicts(session, runs=[run], now=run.last_report_at)[run.pk].verdict is RunVerdict.DIVERGED
        add_segment(session, run, "2", fork_step=250)
        assert verdicts(session, runs=[run], now=run.last_report_at)[run.pk].verdict is RunVerdict.HEALTHY
