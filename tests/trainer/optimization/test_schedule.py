import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ModelConfig, OptimizerConfig
from trainer.model import GPT
from trainer.optimization.schedule import build_optimizer, learning_rate

CONFIG = OptimizerConfig(lr=1.0, warmup_steps=10, final_lr=0.1)


def test_the_warm_up_rises_linearly_from_above_zero_to_the_peak() -> None:
    rates = [learning_rate(step, CONFIG, 100) for step in range(11)]
    assert rates == pytest.approx([(step + 1) / 11 for step in range(11)])


def test_the_cosine_is_half_way_down_in_its_middle_and_ends_at_the_final_rate() -> None:
    assert learning_rate(55, CONFIG, 100) == pytest.approx(0.55)
    assert learning_rate(100, CONFIG, 100) == learning_rate(1000, CONFIG, 100) == pytest.approx(0.1)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300))
def test_the_rate_stays_between_zero_and_the_peak(step: int, warmup: int, total: int) -> None:
    rate = learning_rate(step, OptimizerConfig(lr=0.5, warmup_steps=warmup), total)
    assert 0.0 < rate <= 0.5


def test_matrices_decay_and_gains_do_not() -> None:
    model = GPT(ModelConfig(layers=1, heads=1, width=8, context=4, qk_norm=True))
    optimizer = build_optimizer(model, CONFIG)
    decayed, kept = optimizer.param_groups
    assert {parameter.dim() for parameter in decayed["params"]} == {2}
    assert {parameter.dim() for parameter in kept["params"]} == {1}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
