import pytest

from lossguard.vocabulary.states import IncidentKind
from monitor.detection.interventions.remedies import FITS, MAY_HELP, untried, worth
from tests.monitor.detection.interventions.situations import attempt, situation


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
