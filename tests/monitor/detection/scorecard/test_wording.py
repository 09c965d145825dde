"""The sentence, and the card as JSON."""

import json

import pytest

from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection.effects import Proposal
from monitor.detection.scorecard import wording
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.sites import Action
from monitor.detection.scorecard.totals import total
from tests.monitor.detection.scorecard.stories import STILL_BAD, incident, score, segment, six_runs, stored_run


def test_the_sentence_says_what_auto_would_have_done_and_how_sure_that_is() -> None:
    assert wording.sentence(six_runs()) == (
        "In auto it would have rolled back 3 times and held the run 1 time in 6 runs and 150 GPU-hours "
        "(without 1 run whose time per step is not known). "
        "At 2 of 4 actions nobody acted, and the loss came back by itself; "
        "whether that harmed the run was not measured. "
        "False actions per 1,000 GPU-hours: 6.7 (95%: 0.17 to 37). "
        "Of 1 action it is not known yet. "
        "People and policy agreed at 2 of 4 sites. "
        "It would have waited at 1 site where a person rolled back or the run died. "
        "About 3.2 GPU-hours would have been saved, by an estimate for 2 sites."
    )


def test_none_of_nothing_is_not_shown_as_a_rate_of_zero() -> None:
    quiet = wording.sentence(total(score([stored_run()])))
    assert quiet == (
        "In auto it would have done nothing in 1 run and 30 GPU-hours. "
        "False actions per 1,000 GPU-hours: 0 (95%: 0 to 123)."
    )
    unknown = wording.sentence(total(score([stored_run(step_seconds=None)])))
    assert unknown == "In auto it would have done nothing in 1 run, whose GPU-hours are not known."


def test_a_rate_of_a_few_gpu_hours_is_said_to_be_of_too_little_data() -> None:
    short = total(score([stored_run(incident(), step_seconds=1e-6)]))
    assert 0 < short.gpu_hours < 0.001
    assert wording.rate(short) == "too little data"
    assert "per 1,000" not in wording.sentence(short)
    assert "GPU-hours would have been" not in wording.sentence(short)
    assert "and less than 0.01 GPU-hours" in wording.sentence(short)
    assert [wording.number(value) for value in (-0.02, -0.009, 0.0, 0.009)] == [
        "-0.02",
        "about 0",
        "0",
        "less than 0.01",
    ]


def test_hours_that_would_have_been_lost_are_said_to_be_lost() -> None:
    assert "About 1.4 GPU-hours would have been lost" in wording.sentence(total(score([stored_run(incident())])))


def test_without_runs_the_sentence_says_so() -> None:
    assert wording.sentence(total([])).startswith("There is no run in observe or approve")


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (None, "wait"),
        (Action(kind=OrderKind.HOLD, decided_step=5), "hold the run"),
        (Action(kind=OrderKind.ROLLBACK, decided_step=5), "roll back"),
        (Action(kind=OrderKind.ROLLBACK, decided_step=5, rewind_to=3), "rewind to 3"),
        (
            Action(kind=OrderKind.ROLLBACK, decided_step=5, rewind_to=3, skip_from=4, skip_to=9, is_estimated=True),
            "rewind to 3, skip 5 batches (estimated)",
        ),
    ],
)
def test_an_action_in_words(action: Action | None, text: str) -> None:
    assert wording.action_text(action) == text


def test_every_ending_has_words() -> None:
    assert set(wording.ENDINGS) == set(Ending)


def test_runs_in_auto_are_said_to_be_left_out() -> None:
    assert wording.not_scored(1) == "1 run in auto is not scored: its orders were carried out."
    assert wording.not_scored(2) == "2 runs in auto are not scored: their orders were carried out."


def test_the_card_as_json_has_every_site_with_its_terms() -> None:
    dead = stored_run(incident(kind=IncidentKind.NONFINITE, **STILL_BAD), state="failed", id="r2", project="llama")
    held = incident(2, onset_step=2000, detected_step=2001, proposal=Proposal(OrderKind.HOLD, 2001, None, None, None))
    card = json.loads(json.dumps(wording.to_dict(score([stored_run(incident(), held), dead]), num_auto=3)))
    assert card["runs_in_auto"] == 3
    assert list(card["projects"]) == ["gpt", "llama"]
    assert card["projects"]["gpt"]["false_actions"] == 2
    first, second = card["runs"][0]["sites"]
    assert first["steps"] == {"again": 118, "loading": 10.0, "dropped": 10.0, "lost": 0, "saved": -138.0}
    assert first["gpu_hours_saved"] == pytest.approx(-1.38)
    assert (second["incidents"], second["ending"], second["gpu_hours_saved"]) == ([2], "recovered", None)
    (lost,) = card["runs"][1]["sites"]
    assert (lost["ending"], lost["action"]["rewind_to"]) == ("died", 900)


def test_a_segment_is_not_needed_to_score_a_run() -> None:
    assert score([stored_run(incident(), segments=[segment(7)])])[0].sites
