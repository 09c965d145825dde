"""One value at a time: the scores and the state are those of columns, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detection import DetectionSettings
from monitor.detection.rows import Floats
from monitor.detection.scoring.detector import SignalDetector
from monitor.detection.scoring.signals import PARAMETERS, SignalParameters, parameters
from monitor.detection.scoring.value_scores import feed_value

SIGNALS = {**PARAMETERS, "update_norm": parameters("update_norm")}


def assert_equal(signal: SignalParameters, values: Floats, gaps: list[int], **options: float) -> None:
    detection = DetectionSettings(**options)  # type: ignore[arg-type]
    single, columns = SignalDetector(signal, detection), SignalDetector(signal, detection)
    step = -1
    for k, value in enumerate(values.tolist()):
        step += gaps[k % len(gaps)]
        gap = gaps[k % len(gaps)]
        scores = columns.feed(np.array([value]), np.ones(1, dtype=bool), np.array([step]), np.array([gap]))
        found, expected = feed_value(single, value, step, gap), scores.reading(0, value)
        np.testing.assert_equal(found._asdict(), expected._asdict(), f"row {k}")
    assert single.state_dict() == columns.state_dict()


def calm(noise: Floats) -> Floats:
    return noise


def smoothed(noise: Floats) -> Floats:
    return np.convolve(noise, 0.9 ** np.arange(60), mode="same")


def quantised(noise: Floats) -> Floats:
    return np.round(noise)


def broken(noise: Floats) -> Floats:
    return np.where(np.abs(noise) > 2.3, np.nan, np.where(noise > 2.1, 1e100, noise))


def spiky(noise: Floats) -> Floats:
    return np.where(np.abs(noise) > 1.9, 12.0 * noise, noise)


def raised(noise: Floats) -> Floats:
    return noise + 40.0 * (np.arange(len(noise)) > 200)


def rising(noise: Floats) -> Floats:
    return noise + np.maximum(np.arange(len(noise)) - 200, 0) / 12.0


def fallen(noise: Floats) -> Floats:
    return noise - 50.0 * (np.arange(len(noise)) > 200)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("kind", [calm, smoothed, quantised, broken, spiky, raised, rising, fallen])
def test_a_value_is_scored_as_a_column_of_one_is(name: str, kind: Callable[[Floats], Floats]) -> None:
    values = 3.0 + 0.05 * kind(np.random.default_rng(1).standard_normal(400))
    assert_equal(SIGNALS[name], values, [1] * 40 + [7] * 9, warmup_rows=24, false_alarms_per_10k=4.0)


@settings(max_examples=15)
@given(
    name=st.sampled_from(sorted(SIGNALS)),
    seed=st.integers(0, 10**6),
    extremes=st.dictionaries(st.integers(0, 99), st.floats(width=64), max_size=9),
    gaps=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    warmup_rows=st.integers(1, 40),
)
def test_so_is_any_value(name: str, seed: int, extremes: dict[int, float], gaps: list[int], warmup_rows: int) -> None:
    values = 3.0 + 0.05 * np.random.default_rng(seed).standard_normal(100)
    values[list(extremes)] = list(extremes.values())
    with np.errstate(all="ignore"):
        assert_equal(SIGNALS[name], values, gaps, warmup_rows=warmup_rows, adopt_rows=32)
