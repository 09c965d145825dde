"""What an incident of recomputed steps says."""

from typing import Any

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentState
from monitor.detection.incidents.replay_mismatch import (
    Finding,
    OtherSamples,
    describe_match,
    notice_of,
    replay_mismatch,
)
from monitor.detection.scoring.recomputed_steps import ReplayVerdict
from monitor.detection.scoring.replay_comparison import RateDifference
from monitor.detection.scoring.skip_effect import RepeatedSamples

RECORDED = np.array([2.0, 2.1, 1.9, 2.2, 2.0, 1.8, 2.1, 2.0])


def off_by(*differences: float) -> Any:
    """What was recorded, with these differences."""
    return RECORDED + np.array(differences)


def verdict(recomputed: Any, **changes: Any) -> ReplayVerdict:
    values: dict[str, Any] = {
        "restored_step": 100,
        "noise": 0.1,
        "num_replays": 0,
        "is_new_process": True,
        "steps": np.arange(100, 108),
        "recorded": RECORDED,
        "recomputed": np.array(recomputed),
        "tolerances": np.full(8, 0.01),
    }
    return ReplayVerdict(**(values | changes))


def test_it_is_open_and_has_the_facts_of_the_row_that_differs_most() -> None:
    incident = replay_mismatch(3, verdict(off_by(0, 0, 0, 0.02, 0, -0.3, 0.1, 0)))
    assert (incident.number, incident.state, incident.end_step) == (3, IncidentState.OPEN, None)
    assert (incident.onset_step, incident.peak_step, incident.detected_step) == (103, 105, 107)
    assert (incident.expected, incident.peak_value, incident.scale) == (1.8, 1.5, 0.1)
    assert incident.score == 10.0


@pytest.mark.parametrize(
    ("recomputed", "words"),
    [
        (off_by(0, 0.05, 0.04, 0.06, 0.05, 0.03, 0.04, 0.05), "Step 100 itself agrees"),
        (off_by(0.6, 0.5, 0.5, 0.6, 0.5, 0.5, 0.6, 0.5), "other weights"),
        (off_by(0.03, 0.01, -0.03, 0.02, -0.02, 0.03, 0.02, 0.03), "other weights, or with other random numbers"),
        (off_by(0.4, -0.4, 0.2, -0.4, 0.2, 0.3, -0.2, -0.3), "other batches under the same index"),
        (np.full(8, 2.05), "other batches under the same index"),
        ([np.inf] * 8, "not finite"),
    ],
)
def test_it_says_what_the_difference_looks_like(recomputed: Any, words: str) -> None:
    assert words in replay_mismatch(1, verdict(recomputed)).reasons[-1]


def test_a_loss_that_is_not_finite_is_called_so() -> None:
    assert "is now not finite" in replay_mismatch(1, verdict([np.inf] * 8)).reasons[0]


def test_it_claims_nothing_of_the_first_step_where_that_was_not_logged() -> None:
    later = verdict(RECORDED + 1.0, restored_step=95)
    assert "Already" not in replay_mismatch(1, later).reasons[-1]


RATE = RateDifference(103, 5e-4, 3e-4)


def test_another_learning_rate_is_named_with_what_mends_it() -> None:
    incident = replay_mismatch(1, verdict(RECORDED, rate=RATE))
    assert (incident.signal, incident.onset_step, incident.expected, incident.peak_value) == ("lr", 103, 5e-4, 3e-4)
    what, why, mend = incident.reasons
    assert "step 103 was computed again with the learning rate 0.0003; 0.0005 is recorded" in what
    assert "No order changed the learning rate" in why
    assert "Give the scheduler to Checkpoints(.., scheduler=scheduler)" in mend


def test_losses_that_differ_too_are_described_after_the_learning_rate() -> None:
    reasons = replay_mismatch(1, verdict(RECORDED + 1.0, rate=RATE)).reasons
    assert len(reasons) == 6
    assert "recomputed steps differ from their recorded losses" in reasons[3]


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (
            verdict(RECORDED, rate=RATE),
            "step 103 was computed again with the learning rate 0.0003 instead of 0.0005: give the scheduler to "
            "Checkpoints(.., scheduler=scheduler)",
        ),
        (
            verdict(off_by(0, 0.05, 0.04, 0.06, 0.05, 0.03, 0.04, 0.05)),
            "steps from 101 on were computed again with other losses than recorded: see the incident",
        ),
        (
            RepeatedSamples(100, 120, 160, 120, 121, 2.0),
            "batches 120 to 159 were skipped, but their samples came again: this run skips no more; let "
            "guard.steps(..) read the batches, from the DataLoader or from lossguard.torch.Drawn(get_batch)",
        ),
        (OtherSamples(100, 120), ""),
    ],
)
def test_a_notice_says_in_one_line_what_differs_and_what_mends_it(finding: Finding, words: str) -> None:
    assert notice_of(finding) == words


@pytest.mark.parametrize(
    ("num_replays", "words"),
    [
        (0, "0.001 of the loss for each compared row before it, because no earlier replay"),
        (3, "10 times the largest difference of 3"),
    ],
)
def test_it_says_what_was_tolerated(num_replays: int, words: str) -> None:
    assert words in replay_mismatch(1, verdict(RECORDED + 1.0, num_replays=num_replays)).reasons[1]


@pytest.mark.parametrize(
    ("recomputed", "sentence"),
    [
        (RECORDED, "The first 8 recomputed steps, from step 100, are equal to their record."),
        (RECORDED + 0.001, "The first 8 recomputed steps, from step 100, agree with their record to 0.001 nats."),
        (
            off_by(0.5, 0, 0, 0, 0, 0, 0, 0),
            "7 of the first 8 recomputed steps, from step 100, are equal to their record.",
        ),
    ],
)
def test_a_replay_that_agrees_is_one_sentence(recomputed: Any, sentence: str) -> None:
    assert describe_match(verdict(recomputed)) == sentence
