"""A slow rise is an alarm when the level rises farther than it ever wanders, and one rise is one alarm."""

import json

import numpy as np
import pytest

from benchmarks.suites import RISE_STEP, RISES, ROWS, WANDERING, RiseSuite, WanderingSuite
from monitor.detection import DetectionSettings
from monitor.detection.rows import Floats
from monitor.detection.scoring.detector import SignalDetector
from monitor.detection.scoring.scored_rows import Scores
from monitor.detection.scoring.signals import SIGNALS


def detector() -> SignalDetector:
    return SignalDetector(SIGNALS["loss"], DetectionSettings())


def feed(it: SignalDetector, loss: Floats, start: int = 0) -> Scores:
    steps = np.arange(start, start + len(loss))
    return it.feed(loss, np.ones(len(loss), dtype=bool), steps, np.ones(len(loss), dtype=np.int64))


def alarms(loss: Floats) -> list[int]:
    return np.flatnonzero(feed(detector(), loss).drift >= 1.0).tolist()


def plateau(rows: int, seed: int = 0) -> Floats:
    return 2.0 + 0.05 * np.random.default_rng(seed).standard_normal(rows)


@pytest.mark.parametrize("suite", WANDERING, ids=lambda suite: suite.name)
def test_a_level_that_wanders_as_it_always_has_is_no_divergence(suite: WanderingSuite) -> None:
    assert [alarms(suite.loss(seed)) for seed in range(2)] == [[], []]


@pytest.mark.parametrize("suite", [s for s in RISES if s.height / s.rows > 1 / 400], ids=lambda suite: suite.name)
def test_a_true_rise_is_found_while_it_lasts_whatever_its_steepness(suite: RiseSuite) -> None:
    first, *_ = alarms(suite.loss(seed=3))
    assert RISE_STEP < first < RISE_STEP + suite.rows


def test_a_lucky_stretch_does_not_make_the_normal_level_a_divergence() -> None:
    loss = plateau(6000)
    loss[3000:3040] -= 0.2
    assert alarms(loss) == []


def test_one_rise_is_one_alarm_until_it_has_doubled() -> None:
    ramp = np.clip((np.arange(8000) - 3000) / 400, 0, 1)
    again = np.clip((np.arange(8000) - 5000) / 400, 0, 1)
    assert len(alarms(plateau(8000) + 0.3 * ramp)) == 1
    once, twice = alarms(plateau(8000) + 0.3 * ramp + 0.3 * again)
    assert 3000 < once < 3400
    assert 5000 < twice < 5400


def test_a_rise_that_is_over_may_be_followed_by_a_larger_one() -> None:
    at = np.arange(12_000)
    hill = np.interp(at, [3000, 3400, 4000, 4400], [0, 0.3, 0.3, 0])
    larger = np.interp(at, [8000, 8400], [0, 0.6])
    first, second, *_ = alarms(plateau(12_000) + hill + larger)
    assert 3000 < first < 3400
    assert 8000 < second < 8400


def test_the_rise_says_where_it_began_and_what_the_level_was_before() -> None:
    loss = plateau(4000)
    loss[3000:] += 0.4 * np.minimum(np.arange(1000) / 400, 1.0)
    scores = feed(detector(), loss)
    at = int(np.argmax(scores.drift >= 1.0))
    assert abs(scores.rise_step[at] - 3000) < 64
    assert scores.reference[at] == pytest.approx(2.0, abs=0.05)


def test_what_is_abrupt_is_not_slow() -> None:
    loss = plateau(4000)
    loss[2000:2080] += 2.0
    assert alarms(loss) == []


def test_after_a_declared_change_the_level_is_new_and_its_wandering_known() -> None:
    it = detector()
    feed(it, WANDERING[-3].loss(0))
    assert it.drift is not None
    wandering = [(scale.mean, scale.largest) for scale in it.drift.scales]
    it.shift()
    assert [(scale.mean, scale.largest) for scale in it.drift.scales] == wandering
    assert all(scale.means == [] for scale in it.drift.scales)


@pytest.mark.parametrize("cut", [1, 15, 16, 1000, 6100])
def test_a_save_anywhere_gives_the_alarms_of_one_pass(cut: int) -> None:
    loss = RISES[1].loss(0)
    first, second = detector(), detector()
    feed(first, loss[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    rest, whole = feed(second, loss[cut:], cut), feed(detector(), loss)
    for column in ("drift", "low_step", "rise_step", "reference"):
        np.testing.assert_array_equal(getattr(rest, column), getattr(whole, column)[cut:])
    assert len(loss) == ROWS
