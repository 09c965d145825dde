"""Whether the losses after a skip show that the skipped samples came again."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.encoding import dump, load
from monitor.detection.rows import Rows
from monitor.detection.scoring.skip_effect import MAX_ROWS, RepeatedSamples, SkipEffect

NOISE, SKIP_FROM, SKIP_TO, RESTORED = 0.02, 120, 160, 100


def losses(seed: int, *, decimals: int = 12) -> np.ndarray:
    """Of the steps 100 to 149, with a spike from step 121 on."""
    values = 2.0 + NOISE * np.random.default_rng(seed).standard_normal(50)
    values[21:] += 1.5
    return values.round(decimals)


def rows(loss: Any, *, skipped: bool = False) -> Rows:
    steps = np.arange(RESTORED, RESTORED + len(loss))
    batches = np.where(skipped & (steps >= SKIP_FROM), steps + SKIP_TO - SKIP_FROM, steps).astype(float)
    return Rows.of(steps, loss=loss, batch_index=batches)


def begun(recorded: Any) -> SkipEffect:
    effect = SkipEffect.of(RESTORED, rows(recorded), skip_from=SKIP_FROM, skip_to=SKIP_TO, noise=NOISE)
    assert effect is not None
    return effect


def found(recorded: Any, again: Any, *, skipped: bool = True) -> RepeatedSamples | None:
    effect: SkipEffect | RepeatedSamples | None = begun(recorded)
    after = rows(again, skipped=skipped)
    for k in range(len(after)):
        if not isinstance(effect, SkipEffect):
            break
        effect = effect.with_row(after, k)
    assert not isinstance(effect, SkipEffect)
    return effect


def test_losses_that_come_again_show_that_the_skip_had_no_effect() -> None:
    evidence = found(losses(1), losses(1))
    assert evidence == RepeatedSamples(RESTORED, SKIP_FROM, SKIP_TO, 120, 121, losses(1)[20])


def test_losses_of_other_samples_show_nothing() -> None:
    assert not any(found(losses(seed), losses(seed + 1)) for seed in range(300))


@given(st.integers(0, 2**32 - 1), st.floats(-1e-4, 1e-4))
def test_rounding_hides_no_sample_that_came_again(seed: int, rounding: float) -> None:
    assert found(losses(seed), losses(seed) * (1 + rounding / 2)) is not None


def test_a_loss_that_is_not_finite_again_is_evidence_together_with_an_equal_one_before_it() -> None:
    recorded, other = losses(1), losses(2)
    recorded[21:], other[21:] = np.nan, np.inf
    assert found(recorded, recorded) is not None
    assert found(recorded, [*recorded[:20], *other[20:]]) is None
    recorded[20] = np.nan
    assert found(recorded, recorded) is None


@pytest.mark.parametrize("recorded", [losses(1, decimals=1), np.full(50, 0.6931)])
def test_losses_that_are_often_equal_are_no_evidence(recorded: Any) -> None:
    assert found(recorded, recorded) is None


def test_batches_that_were_not_skipped_are_not_compared() -> None:
    assert found(losses(1), losses(1), skipped=False) is None


@pytest.mark.parametrize("columns", [{"loss": [2.0] * 50}, {"batch_index": [float(step) for step in range(50)]}, {}])
def test_without_losses_and_batches_there_is_nothing_to_compare(columns: dict[str, Any]) -> None:
    recorded = Rows.of(range(RESTORED, RESTORED + 50), **columns)
    assert SkipEffect.of(RESTORED, recorded, skip_from=SKIP_FROM, skip_to=SKIP_TO, noise=NOISE) is None
    assert SkipEffect.of(RESTORED, rows([]), skip_from=SKIP_FROM, skip_to=SKIP_TO, noise=NOISE) is None


def test_the_first_skipped_steps_are_compared_and_no_later_ones() -> None:
    effect = begun(losses(1))
    assert effect.steps.tolist() == list(range(SKIP_FROM, SKIP_FROM + MAX_ROWS))


@given(st.integers(0, 22))
def test_a_save_anywhere_changes_nothing(cut: int) -> None:
    effect: Any = begun(losses(1))
    after = rows(losses(1), skipped=True)
    for k in range(22):
        if k == cut:
            text = json.dumps(dump(effect), allow_nan=False)
            effect = load(SkipEffect, json.loads(text))
            assert json.dumps(dump(effect)) == text
        effect = effect.with_row(after, k)
    assert isinstance(effect, RepeatedSamples)
