import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.wording import (
    Estimate,
    abbreviated,
    ago,
    apart,
    batches,
    count,
    duration,
    form,
    incident_standing,
    number,
    percent,
    plural,
    recovery_sentence,
    size,
)


def test_a_count_of_one_has_the_singular_and_all_others_have_the_plural() -> None:
    assert [plural(count, "step") for count in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]
    assert [plural(count, "batch is", "batches are") for count in (1, 2)] == ["1 batch is", "2 batches are"]
    assert [form(count, "run") for count in (1, 2)] == ["run", "runs"]


@pytest.mark.parametrize(
    ("shown", "values"),
    [
        (number, {2.10342: "2.103", "NaN": "NaN", "-Infinity": "-inf", None: "-", 1e46: "1e+46", 3: "3"}),
        (duration, {0.2: "0 s", 42.4: "42 s", 90.0: "1.5 min", 7200.0: "2.0 h", 864_000.0: "10 d"}),
        (lambda seconds: ago(100.0, 100.0 + seconds), {0.2: "0 s ago", 90.0: "1.5 min ago"}),
        (count, {1_234_567: "1,234,567", None: "-"}),
        (percent, {0.264: "26.4%"}),
        (lambda ends: batches(*ends), {(5, 10): "5 to 9", (5, 5): "-", (None, 3): "-"}),
        (abbreviated, {12.0: "12", 6_000: "6 k", 15_160_000: "15.2 M", 999_999: "1 M"}),
        (size, {512: "512 bytes", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"}),
    ],
)
def test_a_value_has_as_many_digits_as_people_need_and_its_unit(shown: Any, values: dict[Any, str]) -> None:
    assert {value: shown(value) for value in values} == values


@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        (2.71828, 3.14159, ("2.72", "3.14")),
        (2.3341, 2.3312, ("2.334", "2.331")),
        (290.0, 290.0, ("290", "290")),
        (math.nan, 2.0, ("nan", "2")),
    ],
)
def test_two_values_have_three_digits_or_as_many_as_tell_them_apart(
    first: float, second: float, texts: tuple[str, str]
) -> None:
    assert apart(first, second) == texts


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_the_standard_error_is_the_sample_deviation_over_the_root_of_the_number(values: list[float]) -> None:
    estimate = Estimate.of(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert estimate.mean == pytest.approx(mean, abs=1e-6)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance / len(values)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.95, 1.97, 1.94], "1.9533 +- 0.0088"),
        ([100.0, 140.0], "120 +- 20"),
        ([0.0, 0.0], "0"),
        ([2.5], "2.5"),
        ([1.0, math.inf], "nan"),
        ([math.inf, -math.inf], "nan"),
        ([1e308, 1e308], "nan"),
        ([], "nan"),
    ],
)
def test_an_estimate_is_shown_with_two_digits_of_its_error(values: list[float], shown: str) -> None:
    assert str(Estimate.of(values)) == shown


@pytest.mark.parametrize(
    ("kind", "state", "lasting", "sentence"),
    [
        ("loss_spike", "open", 0.18, "It recovers by itself in about 8 of 10 such cases."),
        ("loss_spike", "open", 0.02, "It recovers by itself in more than 19 of 20 such cases."),
        ("loss_spike", "treated", 0.97, "It recovers by itself in fewer than 1 of 20 such cases."),
        ("nonfinite", "open", 1.0, "It does not recover by itself: a value is not finite."),
        ("grad_spike", "warning", None, "Too little is known to say whether it recovers by itself."),
        ("loss_spike", "closed", 0.18, None),
        ("stall", "open", None, None),
    ],
)
def test_an_open_incident_says_how_often_such_cases_recover(
    kind: str, state: str, lasting: float | None, sentence: str | None
) -> None:
    assert recovery_sentence(kind, state, {"lasting_probability": lasting}) == sentence


@pytest.mark.parametrize(
    ("state", "outcome", "successor", "is_held", "standing"),
    [
        ("open", "ongoing", None, False, "open"),
        ("treated", "ongoing", None, False, "treated"),
        ("treated", "ongoing", None, True, "held"),
        ("closed", "recovered", None, False, "recovered"),
        ("closed", "ongoing", 2, False, "superseded by #2"),
    ],
)
def test_an_incident_stands_in_one_way(
    state: str, outcome: str, successor: int | None, is_held: bool, standing: str
) -> None:
    assert incident_standing(state, outcome, {"superseded_by": successor}, is_held=is_held) == standing
