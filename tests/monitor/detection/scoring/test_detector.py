"""The contract that every signal's detector keeps."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from monitor.detection import DetectionSettings
from monitor.detection.rows import Floats
from monitor.detection.scoring.detector import SignalDetector
from monitor.detection.scoring.scored_rows import Scores
from monitor.detection.scoring.signals import SIGNALS

NAMES = list(SIGNALS)
pytestmark = pytest.mark.parametrize("name", NAMES)


def detector(name: str) -> SignalDetector:
    return SignalDetector(SIGNALS[name], DetectionSettings())


def stream(name: str, rows: int = 3000, seed: int = 0) -> Floats:
    noise = np.random.default_rng(seed).standard_normal(rows)
    return np.exp(0.15 * noise) if name == "grad_norm" else 3.0 + 0.05 * noise


def feed(it: SignalDetector, values: Floats, start: int = 0) -> Scores:
    steps = np.arange(start, start + len(values))
    return it.feed(values, np.ones(len(values), dtype=bool), steps, np.ones(len(values), dtype=np.int64))


def alarms(scores: Scores) -> list[int]:
    return np.flatnonzero(scores.non_finite | (scores.evidence >= 1.0) | (scores.drift >= 1.0)).tolist()


def disturbed(name: str, at: int, rows: int = 3000) -> Floats:
    values = stream(name, rows)
    values[at : at + 10] *= 5.0
    return values


def test_silent_in_warm_up_even_on_wild_noise(name: str) -> None:
    for seed in range(20):
        wild = 3.0 + 0.2 * np.random.default_rng(seed).standard_normal(24)
        assert alarms(feed(detector(name), wild)) == []


def test_a_value_that_is_not_finite_is_flagged_and_teaches_nothing(name: str) -> None:
    values = stream(name)
    values[[0, 5, 700]] = [np.nan, np.inf, -np.inf]
    it, clean = detector(name), detector(name)
    assert np.flatnonzero(feed(it, values).non_finite).tolist() == [0, 5, 700]
    feed(clean, np.delete(values, [0, 5, 700]))
    assert it.baseline.level == clean.baseline.level
    assert it.baseline.noise == clean.baseline.noise


@pytest.mark.parametrize("huge", [1e100, 1.79e308, -1.79e308])
def test_a_value_that_nothing_reaches_is_as_good_as_infinite(name: str, huge: float) -> None:
    it = detector(name)
    feed(it, stream(name, 500))
    before = it.state_dict()
    scores = feed(it, np.array([huge, -huge]), 500)
    assert scores.non_finite.all()
    assert it.state_dict() == before


def test_quiet_on_a_clean_stream(name: str) -> None:
    for seed in range(5):
        assert alarms(feed(detector(name), stream(name, 10_000, seed))) == []


def test_found_at_the_row_that_confirms(name: str) -> None:
    assert alarms(feed(detector(name), disturbed(name, 1000)))[0] == 1001


def test_save_and_load_in_mid_stream_is_an_uninterrupted_pass(name: str) -> None:
    values = disturbed(name, 1000)
    whole = feed(detector(name), values)
    for cut in (1, 13, 64, 999, 1003, 2047):
        first, second = detector(name), detector(name)
        feed(first, values[:cut])
        second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        rest = feed(second, values[cut:], cut)
        for column in ("z", "evidence", "single", "drift", "expected", "scale"):
            np.testing.assert_array_equal(getattr(rest, column), getattr(whole, column)[cut:])


def test_a_change_of_unit_changes_no_verdict_once_warm(name: str) -> None:
    values = disturbed(name, 1000)
    scaled = feed(detector(name), 64.0 * values)
    assert alarms(scaled) == alarms(feed(detector(name), values))


def test_what_is_out_of_band_does_not_teach(name: str) -> None:
    it = detector(name)
    feed(it, stream(name, 1024))
    level, noise = it.baseline.level, it.baseline.noise
    feed(it, 20.0 * stream(name, 64), 1024)
    assert (it.baseline.level, it.baseline.noise) == (level, noise)


def test_a_signal_that_is_not_reported_scores_nothing(name: str) -> None:
    it = detector(name)
    nothing = it.feed(np.full(50, np.nan), np.zeros(50, dtype=bool), np.arange(50), np.ones(50, dtype=np.int64))
    assert alarms(nothing) == []
    assert it.baseline.count == 0


def test_quantised_values_have_a_noise(name: str) -> None:
    values = np.round(stream(name), 1)
    assert alarms(feed(detector(name), values)) == []
    values[1000:1010] += 3.0
    assert alarms(feed(detector(name), values))[0] in (1001, 1002)


def test_one_digit_after_a_log_with_few_digits_has_stood_still_is_no_alarm(name: str) -> None:
    values = np.round(stream(name), 1)
    values[600:900], values[900:930] = values[599], values[599] + 0.1
    assert alarms(feed(detector(name), values)) == []


def heavy(noise: Floats) -> Floats:
    return noise**3 / 3.0


def smoothed(noise: Floats) -> Floats:
    return np.convolve(noise, 0.9 ** np.arange(60), mode="same")


def quantised(noise: Floats) -> Floats:
    return np.round(noise)


def still(noise: Floats) -> Floats:
    return np.where(np.arange(len(noise)) // 300 == 2, 1.0, np.round(noise))


def broken(noise: Floats) -> Floats:
    return np.where(np.abs(noise) > 2.5, np.nan, noise)


def raised(noise: Floats) -> Floats:
    return noise + 40.0 * (np.arange(len(noise)) > 700)


@pytest.mark.parametrize("kind", [heavy, smoothed, quantised, still, broken, raised])
def test_row_by_row_is_the_same_as_all_at_once(name: str, kind: Callable[[Floats], Floats]) -> None:
    values = 3.0 + 0.05 * kind(np.random.default_rng(0).standard_normal(1200))
    whole, single = detector(name), detector(name)
    together = feed(whole, values)
    apart = [feed(single, values[k : k + 1], k) for k in range(len(values))]
    for column in ("z", "evidence", "single", "drift", "expected", "scale", "low_step", "non_finite"):
        alone = np.concatenate([getattr(scores, column) for scores in apart])
        np.testing.assert_array_equal(alone, getattr(together, column), err_msg=column)
    assert single.state_dict() == whole.state_dict()
