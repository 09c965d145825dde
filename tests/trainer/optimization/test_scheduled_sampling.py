import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import ObjectiveConfig
from trainer.optimization.scheduled_sampling import training_inputs

PARALLEL = ObjectiveConfig(parallel_scheduled_sampling=1.0)
NO_TEACHER_FORCING = ObjectiveConfig(scheduled_sampling=1.0)


def counts_on(inputs_BT: Tensor) -> Tensor:
    """Predicts that token t is followed by t + 1 (modulo 7), for certain."""
    return 100.0 * F.one_hot((inputs_BT + 1) % 7, 7).float()


def test_in_parallel_each_token_is_predicted_after_the_true_ones() -> None:
    assert training_inputs(counts_on, torch.tensor([[0, 3, 3, 3]]), PARALLEL).tolist() == [[0, 1, 4, 4]]


def test_without_teacher_forcing_each_token_is_predicted_after_the_models_own() -> None:
    assert training_inputs(counts_on, torch.tensor([[0, 3, 3, 3]]), NO_TEACHER_FORCING).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "config", [ObjectiveConfig(scheduled_sampling=0.25), ObjectiveConfig(parallel_scheduled_sampling=0.25)]
)
def test_the_chosen_share_of_the_inputs_behind_the_first_is_replaced(config: ObjectiveConfig) -> None:
    torch.manual_seed(0)
    mixed = training_inputs(counts_on, torch.full((200, 50), 3), config)
    assert mixed[:, 0].eq(3).all()
    assert mixed[:, 1:].ne(3).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_a_model_that_diverged_still_gives_tokens_of_the_vocabulary(logit: float) -> None:
    inputs_BT = torch.zeros(3, 5, dtype=torch.int64)
    own_BT = training_inputs(lambda prefix_BT: torch.full((*prefix_BT.shape, 7), logit), inputs_BT, NO_TEACHER_FORCING)
    assert own_BT.min() >= 0
    assert own_BT.max() < 7
