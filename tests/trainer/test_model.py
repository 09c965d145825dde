import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import ModelConfig
from trainer.model import GPT, Rotation, flops_per_token

CONFIG = ModelConfig(vocab_size=50, layers=2, heads=2, width=16, context=12)


def _model(config: ModelConfig = CONFIG) -> GPT:
    torch.manual_seed(0)
    return GPT(config)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_token_never_sees_what_comes_after_it(qk_norm: bool) -> None:
    model = _model(ModelConfig(vocab_size=50, layers=2, heads=2, width=16, context=12, qk_norm=qk_norm))
    inputs_BT = torch.randint(50, (3, 12))
    changed_BT = inputs_BT.clone()
    changed_BT[:, 7:] = (changed_BT[:, 7:] + 1) % 50
    before, after = model(inputs_BT), model(changed_BT)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_attention_depends_on_distance_and_not_on_place() -> None:
    """Rotary positions: the score of a query and a key is the same when both move on together."""
    model = _model()
    query_TK, key_TK = torch.randn(1, 8).expand(12, 8), torch.randn(1, 8).expand(12, 8)
    rotation = Rotation(model.cos_TK, model.sin_TK)
    scores_TT = rotation.rotate(query_TK) @ rotation.rotate(key_TK).T
    assert torch.allclose(scores_TT[5, 2], scores_TT[9, 6], atol=1e-5)
    assert not torch.allclose(scores_TT[5, 2], scores_TT[5, 4], atol=1e-3)


def test_the_counted_operations_are_those_that_torch_counts_for_the_matrix_products() -> None:
    """Torch counts attention over the full square; the causal half is (T + 1) / 2T of it."""
    counter = FlopCounterMode(display=False)
    with counter:
        _model()(torch.randint(50, (1, 12)))
    counted = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in counted.items() if "attention" in str(kind))
    expected = counter.get_total_flops() - attention + 2 * 2 * 12 * (12 * 16 + 16) * 2 // 2
    assert flops_per_token(CONFIG) * 12 == 3 * expected


@pytest.mark.parametrize("layers", [1, 3])
def test_without_a_causal_mask_all_positions_are_attended_to_and_counted(layers: int) -> None:
    config = ModelConfig(vocab_size=50, layers=layers, heads=2, width=16, context=12, causal=False)
    assert flops_per_token(config) * 12 == 3 * _counted_by_torch(config)
    assert flops_per_token(config, full_attention=True) == flops_per_token(config)


def test_full_attention_counts_the_whole_square_as_torch_does() -> None:
    assert flops_per_token(CONFIG, full_attention=True) * 12 == 3 * _counted_by_torch(CONFIG)


def _counted_by_torch(config: ModelConfig) -> int:
    """Of a forward pass over a whole context, with the attention as two plain matrix products."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        _model(config)(torch.randint(50, (1, config.context)))
    return counter.get_total_flops()


def test_an_untied_model_has_an_output_projection_of_its_own_and_the_same_products() -> None:
    config = ModelConfig(vocab_size=50, layers=2, heads=2, width=16, context=12, tied=False)
    model = _model(config)
    assert model.num_parameters() == _model().num_parameters() + 50 * 16
    assert flops_per_token(config) == flops_per_token(CONFIG)
    model(torch.randint(50, (1, 12))).sum().backward()
    assert model.unembedding is not None
    assert model.unembedding.weight.grad is not None
    assert model.unembedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
