import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import ObjectiveConfig
from trainer.scheduled_sampling import roll_out, training_inputs

PARALLEL = ObjectiveConfig(parallel_scheduled_sampling=1.0)
NO_TEACHER_FORCING = ObjectiveConfig(scheduled_sampling=1.0)


def counts_on(inputs_BT: Tensor) -> Tensor:
    """Predicts that token t is followed by t + 1 (modulo 7), for certain."""
    return 100.0 * F.one_hot((inputs_BT + 1) % 7, 7).float()


def test_teacher_forcing_leaves_the_inputs_as_they_are() -> None:
    inputs_BT = torch.tensor([[0, 3, 3, 3]])
    assert training_inputs(counts_on, inputs_BT, ObjectiveConfig()) is inputs_BT


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


def test_errors_compound_in_a_roll_out_and_not_in_parallel() -> None:
    """Of a text that counts, a model skips a number in one of ten steps. In a roll-out, it is wrong from then on."""
    true_BT = torch.arange(12).expand(2000, 12)

    def skips(inputs_BT: Tensor) -> Tensor:
        right, wrong = (F.one_hot(inputs_BT + i, 25) for i in (1, 2))
        return torch.log(0.9 * right + 0.1 * wrong + 1e-12)

    torch.manual_seed(0)
    own_BT = training_inputs(skips, true_BT, NO_TEACHER_FORCING)
    still_true_T = own_BT.eq(true_BT).float().mean(dim=0)
    assert still_true_T.tolist() == pytest.approx([0.9**t for t in range(12)], abs=0.04)
    assert training_inputs(skips, true_BT, PARALLEL).eq(true_BT).all()  # the likeliest after a true prefix is right


def test_sampled_tokens_have_the_probabilities_of_the_model() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    zeros_BT = torch.zeros(20_000, 2, dtype=torch.int64)
    uniforms_BT = torch.rand(zeros_BT.shape, generator=torch.Generator().manual_seed(0))
    own_BT = roll_out(
        lambda inputs_BT: probabilities.log().expand(*inputs_BT.shape, 4), zeros_BT, zeros_BT == 0, uniforms_BT
    )
    shares = torch.bincount(own_BT[:, 1], minlength=4) / len(own_BT)
    assert shares.tolist() == pytest.approx(probabilities.tolist(), abs=0.015)
    assert shares[1] == 0.0


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_a_model_that_diverged_still_gives_tokens_of_the_vocabulary(logit: float) -> None:
    inputs_BT = torch.zeros(3, 5, dtype=torch.int64)
    own_BT = training_inputs(lambda prefix_BT: torch.full((*prefix_BT.shape, 7), logit), inputs_BT, NO_TEACHER_FORCING)
    assert own_BT.min() >= 0
    assert own_BT.max() < 7
