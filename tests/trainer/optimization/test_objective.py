import pytest
import torch
from torch.nn import functional as F

from trainer.config import ModelConfig, ObjectiveConfig
from trainer.model import GPT
from trainer.optimization.objective import objective, squared_error

LOGITS_BTV = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
TARGETS_BT = torch.tensor([[0, 1, 2, 3, 4], [6, 5, 4, 3, 2]])


def test_squared_error_is_that_of_the_probabilities_against_one_hot_targets() -> None:
    expected = (LOGITS_BTV.softmax(-1) - F.one_hot(TARGETS_BT, 7)).square().sum(-1).mean()
    assert squared_error(LOGITS_BTV, TARGETS_BT).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_squared_error_does_not_count_ignored_targets(dtype: torch.dtype) -> None:
    targets_BT = TARGETS_BT.clone()
    targets_BT[0, 1:] = -100
    logits = LOGITS_BTV.detach().to(dtype, copy=True).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    expected = (exact.softmax(-1) - F.one_hot(TARGETS_BT, 7)).square().sum(-1)[targets_BT != -100].mean()
    found = squared_error(logits, targets_BT)
    assert found.item() == pytest.approx(expected.item())
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), exact.grad, atol=1e-7, rtol=torch.finfo(dtype).eps)
    assert squared_error(LOGITS_BTV, torch.full_like(TARGETS_BT, -100)) == 0


@pytest.mark.parametrize("config", [ObjectiveConfig(label_smoothing=0.3), ObjectiveConfig(squared_error=True)])
def test_whatever_is_minimised_the_cross_entropy_is_reported(config: ObjectiveConfig) -> None:
    plain = objective(LOGITS_BTV, TARGETS_BT, ObjectiveConfig(), z_weight=1e-4)
    other = objective(LOGITS_BTV, TARGETS_BT, config, z_weight=1e-4)
    assert other.cross_entropy.equal(plain.cross_entropy)
    assert other.log_z.equal(plain.log_z)
    assert not other.loss.equal(plain.loss)


def test_without_the_causal_mask_a_token_sees_what_comes_after_it() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=50, layers=1, heads=2, width=16, context=12, causal=False))
    inputs_BT = torch.randint(50, (1, 12))
    changed_BT = inputs_BT.clone()
    changed_BT[:, 11] = (changed_BT[:, 11] + 1) % 50
    assert not torch.equal(model(inputs_BT)[:, 0], model(changed_BT)[:, 0])
