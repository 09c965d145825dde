"""The totals over runs, by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.states import Outcome
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.totals import ERROR, at_most, poisson_interval, total
from tests.monitor.detection.scorecard.stories import incident, score, six_runs, stored_run


def test_counts_and_rates_of_six_runs() -> None:
    found = six_runs()
    assert (found.runs, found.sites, found.incidents) == (6, 6, 6)
    assert (found.rollbacks, found.holds, found.actions) == (3, 1, 4)
    assert (found.false_actions, found.undecided_actions, found.missed) == (2, 1, 1)
    assert (found.agreed, found.compared) == (2, 4)  # the restart, and the quiet recovery
    assert {ending for ending, count in found.acted.items() if count} == {
        *(Ending.RECOVERED, Ending.SAME, Ending.OPEN),
    }


def test_the_rate_is_of_the_runs_whose_hours_are_known() -> None:
    found = six_runs()
    hours = 5 * 30.01
    assert found.runs_without_gpu_hours == 1
    assert found.gpu_hours == pytest.approx(hours)
    assert found.false_actions_per_1000_gpu_hours == pytest.approx(1000 / hours)
    assert found.false_actions_interval == pytest.approx((25.318 / hours, 5571.6 / hours), rel=1e-3)


def test_hours_are_summed_over_the_sites_that_can_be_compared() -> None:
    found = six_runs()
    assert found.sites_with_hours == 2
    assert found.gpu_hours_saved == pytest.approx(0.01 * (-138 + (1501 - 900) - 138))


def test_without_hours_there_is_no_rate() -> None:
    found = total(score([stored_run(incident(), step_seconds=None)]))
    assert (found.false_actions_per_1000_gpu_hours, found.false_actions_interval, found.gpu_hours_saved) == (
        None,
        None,
        None,
    )


def test_a_loss_that_stays_higher_is_neither_false_nor_a_success() -> None:
    found = total(score([stored_run(incident(outcome=Outcome.DIVERGED))]))
    assert (found.false_actions, found.missed, found.agreed, found.compared) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (3, 0.6187, 8.767), (10, 4.795, 18.390), (100, 81.364, 121.627)],
)
def test_the_interval_is_that_of_the_tables(count: int, low: float, high: float) -> None:
    """Garwood 1936; 0 and 100 are in every textbook."""
    assert poisson_interval(count) == pytest.approx((low, high), abs=1e-3)


@settings(max_examples=40)
@given(st.integers(0, 1000))
def test_either_end_leaves_its_share_of_the_probability(count: int) -> None:
    low, high = poisson_interval(count)
    assert low <= count < high
    assert at_most(count, high) == pytest.approx(ERROR, rel=1e-6)
    assert count == 0 or 1 - at_most(count - 1, low) == pytest.approx(ERROR, rel=1e-6)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, not -1"):
        poisson_interval(-1)
