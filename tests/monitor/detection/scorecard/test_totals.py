"""The totals over runs, by hand."""

import pytest

from lossguard.vocabulary.states import Outcome
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.totals import total
from tests.monitor.detection.scorecard.stories import incident, score, six_runs, stored_run


def test_counts_and_rates_of_six_runs() -> None:
    found = six_runs()
    assert (found.num_runs, found.num_sites, found.num_incidents) == (6, 6, 6)
    assert (found.rollbacks, found.holds, found.actions) == (3, 1, 4)
    assert (found.false_actions, found.undecided_actions, found.missed) == (2, 1, 1)
    assert (found.agreed, found.compared) == (2, 4)  # the restart, and the quiet recovery
    assert {ending for ending, count in found.endings.items() if count} == {
        *(Ending.RECOVERED, Ending.SAME, Ending.OPEN),
    }


def test_the_rate_is_of_the_runs_whose_hours_are_known() -> None:
    found = six_runs()
    hours = 5 * 30.01
    assert (found.runs_without_hours, found.counted_false_actions) == (1, 1)
    assert found.gpu_hours == pytest.approx(hours)
    assert found.false_action_rate == pytest.approx(1000 / hours)
    assert found.false_action_interval == pytest.approx((25.318 / hours, 5571.6 / hours), rel=1e-3)


def test_hours_are_summed_over_the_sites_that_can_be_compared() -> None:
    found = six_runs()
    assert found.sites_with_hours == 2
    assert found.hours_saved == pytest.approx(0.01 * (-138 + (1501 - 900) - 138))


def test_without_hours_there_is_no_rate() -> None:
    found = total(score([stored_run(incident(), step_seconds=None)]))
    assert (found.false_action_rate, found.false_action_interval, found.hours_saved) == (None, None, None)


def test_a_loss_that_stays_higher_is_neither_false_nor_a_success() -> None:
    found = total(score([stored_run(incident(outcome=Outcome.DIVERGED))]))
    assert (found.false_actions, found.missed, found.agreed, found.compared) == (0, 0, 0, 1)
