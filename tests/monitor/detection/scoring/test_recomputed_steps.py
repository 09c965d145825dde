"""When recomputed steps differ from their record by more than this run's replays do."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.encoding import dump, load
from monitor.detection.rows import Rows
from monitor.detection.scoring.recomputed_steps import (
    MAX_REPLAYS,
    RELATIVE_TOLERANCE,
    SLACK,
    RecomputedSteps,
    ReplayVerdict,
    first_doubtful_step,
)
from monitor.detection.scoring.replay_comparison import MAX_ROWS, Comparison, RateDifference

NOISE = 0.02
losses = st.lists(st.floats(-20, 20), min_size=2, max_size=12)


def rows(loss: Any, first: int = 100, *, shift: int = 0, **columns: Any) -> Rows:
    """Steps from `first` on, with batch = step + `shift`."""
    steps = np.arange(first, first + len(loss))
    return Rows.of(steps, loss=loss, **({"batch_index": (steps + shift).astype(float)} | columns))


def noisy(seed: int, *, noise: float = NOISE, count: int = MAX_ROWS) -> np.ndarray:
    return 2.0 + noise * np.random.default_rng(seed).standard_normal(count)


def replayed(check: RecomputedSteps, recorded: Rows, again: Rows, **options: Any) -> ReplayVerdict | None:
    """By default in the same process."""
    step, options = int(recorded.steps[0]), {"noise": NOISE, "is_new_process": False, "losses": True} | options
    how = {name: options[name] for name in ("is_new_process", "losses")}
    check.begin(Comparison.of(step, recorded, **options), step, **how)
    return check.observe(again) or check.conclude()


def verdict_of(recorded: Rows, again: Rows, check: RecomputedSteps | None = None, **options: Any) -> ReplayVerdict:
    verdict = replayed(check or RecomputedSteps(), recorded, again, **options)
    assert verdict is not None
    return verdict


@given(losses)
def test_equal_rows_are_never_a_mismatch(loss: list[float]) -> None:
    verdict = verdict_of(rows(loss), rows(loss))
    assert (verdict.is_mismatch(), verdict.score()) == (False, 0.0)


@given(st.lists(st.floats(1, 4), min_size=MAX_ROWS, max_size=MAX_ROWS), st.integers(0, 255), st.floats(0.01, 0.3))
def test_losses_that_all_differ_by_the_noise_or_more_are_a_mismatch_in_the_first_replay(
    differences: list[float], signs: int, noise: float
) -> None:
    directions = [1 if signs >> row & 1 else -1 for row in range(MAX_ROWS)]
    again = noisy(1, noise=noise) + noise * np.array(differences) * directions
    verdict = verdict_of(rows(noisy(1, noise=noise)), rows(again), noise=noise)
    assert verdict.is_mismatch()
    assert verdict.score() > 1


@pytest.mark.parametrize(("noise", "least"), [(0.01, 995), (0.02, 1000), (0.3, 1000)])
def test_other_batches_are_a_mismatch_in_the_first_replay(noise: float, least: int) -> None:
    """`least` of 1,000 pairs: at a noise near the tolerance, other batches may have the recorded losses by chance."""
    drawn = [rows(noisy(seed, noise=noise)) for seed in range(1001)]
    assert sum(verdict_of(*pair, noise=noise).is_mismatch() for pair in pairwise(drawn)) >= least


@pytest.mark.slow
@given(st.lists(st.floats(-1, 1), min_size=MAX_ROWS, max_size=MAX_ROWS))
def test_rounding_of_another_machine_is_tolerated_in_the_first_replay_and_in_any_later_one(parts: list[float]) -> None:
    check = RecomputedSteps()
    for _ in range(3):
        assert not verdict_of(rows(noisy(1)), rows(noisy(1)), check).is_mismatch()
        shaken = noisy(1) * (1 + 0.9 * RELATIVE_TOLERANCE * np.array(parts))
        assert not verdict_of(rows(noisy(1)), rows(shaken), check).is_mismatch()


def test_a_difference_that_grows_with_each_update_is_tolerated_until_replays_are_measured() -> None:
    check, growing = RecomputedSteps(), noisy(1) * (1 + 0.9e-3 * np.arange(MAX_ROWS))
    assert not verdict_of(rows(noisy(1)), rows(growing)).is_mismatch()
    verdict_of(rows(noisy(1)), rows(noisy(1)), check)
    assert verdict_of(rows(noisy(1)), rows(growing), check).is_mismatch()


def test_a_new_process_may_run_on_other_hardware_whatever_was_measured() -> None:
    check, growing = RecomputedSteps(), noisy(1) * (1 + 0.9e-3 * np.arange(MAX_ROWS))
    verdict_of(rows(noisy(1)), rows(noisy(1)), check)
    assert not verdict_of(rows(noisy(1)), rows(growing), check, is_new_process=True).is_mismatch()


def test_a_run_whose_replays_differ_may_go_on_to_differ_as_much() -> None:
    check, growing = RecomputedSteps(), noisy(1) * (1 + 0.9e-3 * np.arange(MAX_ROWS))
    verdict_of(rows(noisy(1)), rows(growing), check)
    later = noisy(1) * (1 - 0.9e-3 * (SLACK - 1) * np.arange(MAX_ROWS))
    assert not verdict_of(rows(noisy(1)), rows(later), check).is_mismatch()
    assert verdict_of(rows(noisy(1)), rows(noisy(2, noise=0.3)), check).is_mismatch()


def test_one_row_beyond_its_tolerance_is_no_mismatch_and_is_not_learnt() -> None:
    check, again = RecomputedSteps(), noisy(1)
    again[0] += 0.1
    assert not verdict_of(rows(noisy(1)), rows(again), check).is_mismatch()
    assert np.isnan(check.scatter[0][0])
    again[1] += 0.1
    assert verdict_of(rows(noisy(1)), rows(again), check).is_mismatch()


def test_a_mismatch_is_not_learnt_until_a_person_accepts_it() -> None:
    check = RecomputedSteps()
    for seed in (2, 3):
        assert verdict_of(rows(noisy(1)), rows(noisy(seed)), check).is_mismatch()
    assert check.scatter == []
    check.accept()
    assert not verdict_of(rows(noisy(4)), rows(noisy(5)), check).is_mismatch()


def test_replays_of_a_release_that_compared_fewer_rows_are_left_out() -> None:
    check = RecomputedSteps()
    check.scatter = [np.full(MAX_ROWS, 0.01), np.zeros(MAX_ROWS - 2)]
    loaded = load(RecomputedSteps, json.loads(json.dumps(dump(check))))
    assert [each.tolist() for each in loaded.scatter] == [[0.01] * MAX_ROWS]
    assert not verdict_of(rows(noisy(1)), rows(noisy(1)), loaded).is_mismatch()


def test_a_row_that_is_no_longer_finite_is_beyond_every_tolerance() -> None:
    verdict = verdict_of(rows(noisy(1)), rows([*noisy(1)[:6], np.nan, np.inf]))
    assert verdict.beyond().tolist() == [False] * 6 + [True] * 2
    assert np.isfinite(verdict.score())
    check = RecomputedSteps()
    replayed(check, rows(noisy(1)), rows([np.nan] * MAX_ROWS))
    check.accept()
    assert not np.isinf(check.scatter[0]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_record_ends_where_it_is_not_finite(value: float) -> None:
    recorded = noisy(1)
    recorded[3] = value
    assert verdict_of(rows(recorded), rows(noisy(1))).steps.tolist() == [100, 101, 102]


def test_what_was_recorded_shortly_before_an_incident_is_no_reference() -> None:
    assert first_doubtful_step([]) is None
    assert first_doubtful_step([(500, 502), (120, 121)]) == 112
    assert first_doubtful_step([(500, 510)]) == 480
    assert verdict_of(rows(noisy(1)), rows(noisy(1)), end_step=104).steps.tolist() == [100, 101, 102, 103]
    assert replayed(RecomputedSteps(), rows(noisy(1)), rows(noisy(2)), end_step=100) is None


def test_rows_are_compared_up_to_the_first_that_used_another_batch() -> None:
    check = RecomputedSteps()
    batches = [100.0, 101.0, 102.0, 150.0, 151.0, 152.0, 153.0, 154.0]
    again = rows([*noisy(1)[:3], *noisy(2)[3:]], batch_index=batches)
    verdict = verdict_of(rows(noisy(1)), again, check)
    assert (len(verdict.steps), verdict.is_mismatch(), check.pending) == (3, False, None)


RATES = [1e-3 * 0.9**k for k in range(MAX_ROWS)]


def test_another_learning_rate_is_a_mismatch_at_its_step_and_ends_the_comparison() -> None:
    check = RecomputedSteps()
    again = rows([*noisy(1)[:4], *noisy(2)[4:]], lr=[*RATES[:3], *[5e-4] * 5])
    verdict = verdict_of(rows(noisy(1), lr=RATES), again, check)
    assert verdict.rate == RateDifference(103, RATES[3], 5e-4)
    assert (verdict.is_mismatch(), verdict.has_other_losses(), len(verdict.steps)) == (True, False, 4)
    assert check.scatter == []


def test_a_learning_rate_is_compared_also_where_losses_are_not() -> None:
    """A skip begins at the first step; losses were smoothed."""
    recorded, other = rows(noisy(1), lr=RATES), [*RATES[:5], 1e-3, 1e-3, 1e-3]
    skipped = verdict_of(recorded, rows(noisy(2), shift=50, lr=other))
    smoothed = verdict_of(recorded, rows(noisy(2), lr=other), losses=False)
    for verdict in (skipped, smoothed):
        assert verdict.rate == RateDifference(105, RATES[5], 1e-3)
        assert (verdict.is_mismatch(), len(verdict.steps)) == (True, 0)


@pytest.mark.parametrize("rates", [RATES, [float(np.float32(rate)) for rate in RATES], [None] * MAX_ROWS])
def test_a_learning_rate_that_is_the_same_rounded_or_not_reported_is_no_mismatch(rates: Any) -> None:
    assert not verdict_of(rows(noisy(1), lr=RATES), rows(noisy(1), lr=rates)).is_mismatch()


def test_after_another_learning_rate_the_same_step_is_compared_with_its_first_record() -> None:
    check, recorded, wrong = RecomputedSteps(), rows(noisy(1), lr=RATES), rows(noisy(1), lr=[1e-3] * MAX_ROWS)
    assert verdict_of(recorded, wrong, check).is_mismatch()
    assert verdict_of(wrong, wrong, check).is_mismatch()
    assert not verdict_of(wrong, recorded, check).is_mismatch()
    assert check.disputed is None


def test_a_learning_rate_that_a_person_has_accepted_is_the_record_from_then_on() -> None:
    check, wrong = RecomputedSteps(), rows(noisy(1), lr=[1e-3] * MAX_ROWS)
    verdict_of(rows(noisy(1), lr=RATES), wrong, check)
    check.accept()
    assert not verdict_of(wrong, wrong, check).is_mismatch()


def test_nothing_is_compared_where_no_batch_index_is_reported() -> None:
    nothing: dict[str, Any] = {"batch_index": [None] * MAX_ROWS}
    assert replayed(RecomputedSteps(), rows(noisy(1), **nothing), rows(noisy(2))) is None
    assert replayed(RecomputedSteps(), rows(noisy(1)), rows(noisy(2), **nothing)) is None


def test_a_segment_that_goes_on_where_the_last_one_ended_recomputes_nothing() -> None:
    assert Comparison.of(100, rows([]), noise=NOISE) is None
    assert Comparison.of(100, rows(noisy(1), first=80), noise=NOISE) is None


def test_a_replay_that_is_cut_short_is_judged_by_the_rows_that_it_has() -> None:
    assert replayed(RecomputedSteps(), rows(noisy(1)), rows(noisy(2)[:1])) is None
    assert verdict_of(rows(noisy(1)), rows(noisy(2)[:2])).is_mismatch()


def test_after_a_mismatch_the_same_step_is_compared_with_its_first_record() -> None:
    check = RecomputedSteps()
    verdict_of(rows(noisy(1)), rows(noisy(2)), check)
    assert verdict_of(rows(noisy(2)), rows(noisy(2)), check).is_mismatch()
    assert not verdict_of(rows(noisy(2)), rows(noisy(1)), check).is_mismatch()
    assert check.disputed is None


def test_only_the_last_replays_are_remembered() -> None:
    check = RecomputedSteps()
    for _ in range(MAX_REPLAYS + 5):
        verdict_of(rows(noisy(1)), rows(noisy(1)), check)
    assert len(check.scatter) == MAX_REPLAYS


@given(st.integers(0, MAX_ROWS), st.integers(1, 3))
def test_a_save_anywhere_changes_nothing(cut: int, seed: int) -> None:
    check, again = RecomputedSteps(scatter=[np.full(MAX_ROWS, 1e-3)]), rows(noisy(seed), lr=RATES)
    check.begin(Comparison.of(100, rows(noisy(1), lr=RATES), noise=NOISE), 100)
    first = check.observe(again[:cut])
    loaded = load(RecomputedSteps, json.loads(json.dumps(dump(check), allow_nan=False)))
    verdict = first or loaded.observe(again[cut:])
    assert verdict is not None
    assert verdict.is_mismatch() == (seed > 1)
    text = json.dumps(dump(loaded), allow_nan=False)
    assert json.dumps(dump(load(RecomputedSteps, json.loads(text)))) == text


@pytest.mark.parametrize("damaged", [{"pending": {"steps": [1]}}, {"disputed": 7}, {"scatter": [3]}])
def test_a_state_that_cannot_be_read_raises(damaged: dict[str, Any]) -> None:
    assert load(RecomputedSteps, {}) == RecomputedSteps()
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
        load(RecomputedSteps, damaged)
