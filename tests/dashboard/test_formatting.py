"""What people read."""

import math
import re
from collections.abc import Callable
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import formatting
from db.models import Incident, Intervention, Order


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (2.34567, "2.346"),
        (123456.7, "123,457"),
        (3e12, "3.000e+12"),
        (math.nan, "NaN"),
        (-math.inf, "-infinity"),
        ("NaN", "NaN"),
        pytest.param(10**400, "1.000e+400", id="beyond any float"),
    ],
)
def test_a_number_is_short_and_never_lost(value: float | str | None, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.2, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3660, "1 h 01 min"), (90000, "1 d 01 h")],
)
def test_a_duration_has_two_units(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9997, "1 s"),
        (999.4, "999 s"),
        (999.6, "16 min 40 s"),
        (1234, "20 min 34 s"),
        (math.inf, "infinity"),
    ],
)
def test_a_short_time_has_three_digits_and_no_power_of_ten(seconds: float | None, text: str) -> None:
    assert formatting.seconds(seconds) == text


def test_a_rollback_says_where_it_went_when_that_is_not_where_it_was_sent() -> None:
    sent = Intervention(kind="rollback", rewind_to=300, skip_from=250, skip_to=500, lr_scale=None)
    went = Order(state="applied", rewound_to=250)
    sentence = "Rewind to step 250 (step 300 was requested), skip 250 batches (250 to 499)."
    assert formatting.intervention_sentence(sent, went) == sentence


def test_reasons_are_a_list_in_which_nothing_else_is_markdown() -> None:
    assert formatting.bullet_list(["a *b*", "![x](http://y) <b>"]) == (
        "- a \\*b\\*\n- \\!\\[x\\]\\(http\\:\u2060//y\\) \\<b\\>"
    )
    assert formatting.bullet_list(["one\n\n# two"]) == "- one \\# two"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (999.0, "999"), (999_600.0, "1 M"), (826_368, "826 k"), (3e11, "300 B"), (math.inf, "infinity")],
)
def test_a_large_number_has_three_digits_and_a_unit(value: float | None, text: str) -> None:
    assert formatting.abbreviated(value) == text


# What remark-gfm makes links of, in a text whose escapes it has undone.
LINKS = re.compile(r"https?://|www(?=\.)|[-.\w+]+@[-\w]+(?:\.[-\w]+)+", re.IGNORECASE)


@given(
    st.lists(
        st.sampled_from(["http", "HTTPS", ":", "//", "://", "www", "WWW.", ".", "a", "@", "b.c", "\\", "\u2060", " "])
    )
)
def test_no_name_is_an_address_that_markdown_makes_a_link_of(parts: list[str]) -> None:
    escaped = formatting.escape_markdown("".join(parts))
    assert not LINKS.search(re.sub(r"\\(.)", r"\1", escaped))
    assert not LINKS.search(escaped)


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(), st.sampled_from([10**400, -(10**400)]))


@given(NUMBERS)
@pytest.mark.parametrize(
    "form", [formatting.number, formatting.two_digits, formatting.percent, formatting.abbreviated, formatting.duration]
)
def test_every_number_has_a_short_text(form: Callable[[Any], str], value: float | None) -> None:
    assert 1 <= len(form(value)) <= len("-1.797e+308 d 00 h")


def test_a_name_cannot_reverse_the_text_after_it() -> None:
    assert formatting.escape_plotly("\u202eloss") == "\\u202eloss"
    assert "\u2067" not in formatting.escape_markdown("a\u2067b")


def test_an_open_spike_says_how_often_such_cases_recover() -> None:
    times = {"onset_step": 40, "detected_step": 41, "peak_step": None, "end_step": None}
    incident = Incident(kind="loss_spike", state="open", details={"lasting_probability": 0.18}, **times)
    start = "Onset at step 40, detected at 41, still in progress."
    assert formatting.incident_sentence(incident) == f"{start} It recovers by itself in about 8 of 10 such cases."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01 00:00:00"), (1e11, "5138-11-16 09:46:40"), (1e300, "9999-12-30 00:00:00"),
     (-1e300, "0001-01-02 00:00:00"), (math.nan, "0001-01-02 00:00:00")],
)  # fmt: skip
def test_a_clock_that_is_far_off_shows_the_nearest_time_of_the_calendar(seconds: float, text: str) -> None:
    assert formatting.moment(seconds, UTC) == text


@given(st.floats(), st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"]))
def test_every_time_has_a_text_in_every_zone(seconds: float, name: str) -> None:
    assert len(formatting.moment(seconds, ZoneInfo(name))) == len("1970-01-01 00:00:00")
    assert formatting.moment(seconds, ZoneInfo(name), now=seconds)
