import math
import random
from collections.abc import Callable

import pytest

from lossguard.spool.band import MAX_STEPS, Measured, above_band


def losses(loss: Callable[[int], float], num: int, first: int = 0) -> list[Measured]:
    return [(step, loss(step), None) for step in range(first, first + num)]


def usual_loss(seed: int = 0) -> Callable[[int], float]:
    draw = random.Random(seed)
    return lambda step: 3 + 2 * math.exp(-step / 200) + draw.gauss(0, 0.05)


CLEAN: dict[str, Callable[[random.Random, int], float]] = {
    "falling": lambda draw, step: 3 + 8 * math.exp(-step / 100) + draw.gauss(0, 0.05),
    "noisy": lambda draw, step: 3 + draw.gauss(0, 0.8),
    "heavy tails": lambda draw, step: math.exp(1.5 * draw.gauss(0, 1)),
    "without a mean": lambda draw, step: 3 + 0.05 * math.tan(math.pi * (draw.random() - 0.5)),
    "rising slowly": lambda draw, step: 2 + step / 1000 + draw.gauss(0, 0.05),
    "a slow wave": lambda draw, step: 3 + math.sin(step / 160) + draw.gauss(0, 0.01),
    "constant": lambda draw, step: 0.0,
    "some steps are not finite": lambda draw, step: math.nan if draw.random() < 0.05 else 3 + draw.gauss(0, 0.05),
}


@pytest.mark.parametrize("kind", CLEAN)
@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_no_step_of_a_clean_run_is_above_its_band(kind: str, name: str) -> None:
    draw, steps = random.Random(1), list[Measured]()
    for step in range(1500):
        value = CLEAN[kind](draw, step)
        steps.append((step, value, None) if name == "loss" else (step, None, abs(value)))
        if step % 3 == 0:
            assert above_band(steps[-MAX_STEPS:], step + 1) is None


def test_a_spike_is_above_the_band_from_its_sixth_step_on_for_as_long_as_it_lasts() -> None:
    usual = usual_loss()
    steps = losses(lambda step: usual(step) + 2 * (step >= 900), 980)
    found = [step for step in range(800, 981) if above_band(steps[:step][-MAX_STEPS:], step)]
    assert found == list(range(906, 981))
    reason = above_band(steps[-MAX_STEPS:], 980)
    assert reason == "the loss of step 979 is in a spike: 5.104, and its band ends at 3.367"


def test_a_norm_is_above_the_band_and_steps_that_the_scaler_leaves_out_are_not() -> None:
    draw = random.Random(0)
    steps: list[Measured] = [(step, 3.0, 0.3 * math.exp(0.3 * draw.gauss(0, 1))) for step in range(400)]
    assert above_band([*steps, *((step, 3.0, math.inf) for step in range(400, 410))], 410) is None
    reason = above_band([*steps, *((step, 3.0, 20.0) for step in range(400, 410))], 410)
    assert reason is not None
    assert reason.startswith("the gradient norm of step 409 is in a spike: 20, and its band ends at ")


def test_a_loss_that_is_no_longer_finite_is_above_the_band() -> None:
    steps = losses(usual_loss(), 200) + losses(lambda _: math.nan, 8, first=200)
    assert above_band(steps, 208) == "the loss of step 207 is in a spike: inf, and its band ends at 6.467"


def test_losses_that_were_not_finite_before_do_not_widen_the_band() -> None:
    usual = usual_loss()
    steps = losses(lambda step: math.nan if step in (20, 40, 60, 80) else usual(step + 900) + (step >= 390), 400)
    assert above_band(steps, 400) is not None


def test_only_steps_before_the_state_are_judged_and_few_not_at_all() -> None:
    spike = losses(lambda _: 9.0, 8, first=200)
    assert above_band(losses(usual_loss(), 200) + spike, 200) is None
    assert above_band(losses(usual_loss(), 40, first=160) + spike, 208) is None
    assert above_band([], 0) is None
