"""Times that a calendar does not have."""

import math
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01 00:00:00"), (1e11, "5138-11-16 09:46:40"), (1e300, "9999-12-30 00:00:00"),
     (-1e300, "0001-01-02 00:00:00"), (math.nan, "0001-01-02 00:00:00")],
)  # fmt: skip
def test_a_clock_that_is_far_off_shows_the_nearest_time_of_the_calendar(seconds: float, text: str) -> None:
    assert clock.moment(seconds, UTC) == text


@given(st.floats(), st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"]))
def test_every_time_has_a_text_in_every_zone(seconds: float, name: str) -> None:
    assert len(clock.moment(seconds, ZoneInfo(name))) == len("1970-01-01 00:00:00")
    assert clock.moment(seconds, ZoneInfo(name), now=seconds)
