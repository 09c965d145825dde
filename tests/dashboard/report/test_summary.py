"""The numbers of a report."""

from dashboard.report.summary import recent_mean
from tests.dashboard.series import bucketed, plain


def test_the_mean_of_huge_losses_is_no_overflow() -> None:
    assert recent_mean(plain([1e308] * 100)) == (1e308, 2)


def test_the_mean_at_the_end_counts_the_steps_that_its_buckets_span() -> None:
    assert recent_mean(bucketed()) == (1.18, 100)
    assert recent_mean(plain([2.0, None])) == (None, 1)
