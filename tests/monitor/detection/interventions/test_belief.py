"""What the incident and the attempts that failed say about its cause."""

import pytest

from lossguard.vocabulary.states import IncidentKind
from monitor.detection.interventions.belief import FITS, MAY_HELP, believe, looks_like_damage, untried, worth
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation


@pytest.mark.parametrize(("name", "signal"), [("z_loss", "log_z"), ("clip", "grad_norm")])
def test_a_remedy_is_worth_more_where_its_signal_raised_an_alarm(name: str, signal: str) -> None:
    assert worth(name, situation(signals=["loss"]), False).recipe == MAY_HELP
    assert worth(name, situation(signals=[signal, "loss"]), False).recipe == FITS


def test_a_lower_learning_rate_is_worth_more_against_a_rise_than_against_nan() -> None:
    rise, nan = (situation(kind=kind) for kind in (IncidentKind.DIVERGENCE, IncidentKind.NONFINITE))
    assert worth("learning_rate", rise, False).recipe > worth("learning_rate", nan, True).recipe


def test_moments_help_against_a_damaged_state_and_not_against_the_recipe() -> None:
    assert (worth("moments", situation(), True).recipe, worth("moments", situation(), True).state) == (0.0, FITS)


def test_a_remedy_that_an_attempt_had_is_not_tried_again_unless_that_was_not_carried_out() -> None:
    attempts = [attempt(1, remedies=("clip",)), attempt(2, remedies=("z_loss",), executed=False)]
    assert untried(situation(remedies=("clip", "z_loss", "own"), attempts=attempts)) == ["z_loss", "own"]


def test_a_loss_of_twenty_levels_in_one_row_is_damage_and_a_slower_one_is_not() -> None:
    assert looks_like_damage(situation(peak_excess=41.0))
    assert not looks_like_damage(situation(peak_excess=39.0))
    assert not looks_like_damage(situation(peak_excess=41.0, detected_step=5010))


def test_trouble_that_comes_back_after_a_replay_is_blamed_on_the_batches() -> None:
    replayed = attempt(rewind_to=4990, skip_from=None, skip_to=None)
    assert believe(situation(attempts=[replayed]), batch_of).batches > believe(situation(), batch_of).batches


def test_trouble_that_comes_back_after_a_wide_skip_is_not_blamed_on_the_batches() -> None:
    shallow = attempt(rewind_to=4999, skip_from=5006, skip_to=9000)
    assert believe(situation(attempts=[shallow]), batch_of).batches < 0.1


def test_an_attempt_that_was_not_carried_out_shows_nothing_about_the_cause() -> None:
    failed = attempt(rewind_to=4980, executed=False)
    assert believe(situation(attempts=[failed]), batch_of) == believe(situation(), batch_of)


def test_a_remedy_that_the_trouble_came_back_after_speaks_against_the_recipe() -> None:
    first = attempt(1, rewind_to=4980, skip_from=5006, skip_to=5106)
    without, with_clip = (
        [first, attempt(2, rewind_to=4980, skip_from=5006, skip_to=5106, remedies=remedies)]
        for remedies in ((), ("clip",))
    )
    facts = {"remedies": ("clip", "z_loss"), "signals": ["grad_norm"]}
    believed = [believe(situation(attempts=each, **facts), batch_of).recipe for each in (without, with_clip)]
    assert believed[0] > believed[1] > 0


def test_earlier_sites_that_were_hard_speak_for_the_recipe_and_easy_ones_against_it() -> None:
    def recipe(hard: int, easy: int) -> float:
        return believe(situation(hard_sites=hard, easy_sites=easy, remedies=("learning_rate",)), batch_of).recipe

    assert recipe(0, 0) == recipe(0, 5) == 0.0
    assert 0.3 < recipe(1, 0) < recipe(3, 0) < 1.0
    assert recipe(1, 5) < recipe(1, 1) < recipe(1, 0)
