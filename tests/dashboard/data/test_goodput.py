"""The time of a run in words."""

from dashboard.data.goodput import NAMES, largest_loss, lost_seconds
from db.goodput.accounting import Breakdown, TimeCause


def test_every_cause_has_a_name() -> None:
    assert set(NAMES) == set(TimeCause)


def test_the_largest_loss_is_never_the_training() -> None:
    seconds = dict.fromkeys(TimeCause, 0.0) | {TimeCause.TRAINING: 9.0}
    assert largest_loss(Breakdown(seconds)) is None
    lost = Breakdown(seconds | {TimeCause.HANG: 2.0, TimeCause.SPIKE: 3.0})
    assert (largest_loss(lost), lost_seconds(lost)) == (TimeCause.SPIKE, 5.0)
