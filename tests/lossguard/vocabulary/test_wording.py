import pytest

from lossguard.vocabulary.wording import ago, batches, count, duration, form, number, percent, plural, size


def test_a_count_of_one_has_the_singular_and_all_others_have_the_plural() -> None:
    assert [plural(count, "step") for count in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]
    assert [plural(count, "batch is", "batches are") for count in (1, 2)] == ["1 batch is", "2 batches are"]
    assert [form(count, "run") for count in (1, 2)] == ["run", "runs"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.10342, "2.103"), ("NaN", "NaN"), ("-Infinity", "-inf"), (None, "-"), (1e46, "1e+46"), (3, "3")],
)
def test_a_value_has_four_digits_and_says_when_it_is_not_finite(value: float | str | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (42.4, "42 s"), (90.0, "1.5 min"), (7200.0, "2.0 h"), (864_000.0, "10 d")]
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert ago(100.0, 100.0 + seconds) == f"{text} ago"


def test_counts_shares_and_ranges() -> None:
    assert (count(1_234_567), count(None), percent(0.264)) == ("1,234,567", "-", "26.4%")
    assert [batches(*pair) for pair in ((5, 10), (5, 5), (None, 3))] == ["5 to 9", "-", "-"]


def test_a_size_has_a_unit() -> None:
    assert [size(each) for each in (512, 1536, 5 << 30)] == ["512 bytes", "1.5 KiB", "5.0 GiB"]
