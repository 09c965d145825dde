import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from lossguard.torch import LayerGradNorms, UpdateNorm, expert_imbalance, expert_loads, next_token
from lossguard.torch.measurements import layer_of


class Model(nn.Module):
    def __init__(self, layers: int, device: str = "cpu") -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 4, device=device)
        self.blocks = nn.ModuleList(nn.Linear(4, 4, device=device) for _ in range(layers))
        self.norm = nn.LayerNorm(4, device=device)
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)


def test_neighbouring_layers_make_groups_whose_squares_add_up_to_the_whole_norm() -> None:
    model = Model(12)
    norms = LayerGradNorms(model, num_groups=4).measure()
    names = ["embedding", "blocks 00-02", "blocks 03-05", "blocks 06-08", "blocks 09-11", "norm"]
    assert list(norms) == [f"layer_grad_norm/{name}" for name in names]
    whole = nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])
    torch.testing.assert_close(torch.stack([*norms.values()]).norm(), whole)


@pytest.mark.parametrize(("layers", "expected"), [(1, ["0"]), (3, ["0", "1", "2"]), (7, ["0-1", "2-3", "4-5", "6"])])
def test_every_layer_is_in_one_group(layers: int, expected: list[str]) -> None:
    norms = LayerGradNorms(Model(layers), num_groups=4).measure()
    groups = [name.split(" ")[1] for name in norms if " " in name]
    assert [group for group in groups] == expected


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.3.attention.weight", ("blocks", 3)),
        ("module.model.layers.11.mlp.0.weight", ("model.layers", 11)),
        ("_orig_mod.blocks.0.weight", ("blocks", 0)),
        ("lm_head.weight", ("lm_head", None)),
        ("0.weight", ("0", None)),
    ],
)
def test_a_layer_is_found_in_the_name_of_a_parameter(name: str, layer: tuple[str, int | None]) -> None:
    assert layer_of(name) == layer


def test_a_group_without_gradients_is_left_out_and_a_gradient_that_is_not_finite_is_news() -> None:
    model = Model(2)
    model.embedding.weight.grad = None
    model.norm.weight.grad = torch.full((4,), torch.nan)
    norms = LayerGradNorms(model).measure()
    assert "layer_grad_norm/embedding" not in norms
    assert norms["layer_grad_norm/norm"].isnan()


def imbalance(loads: Sequence[float] | Sequence[Sequence[float]]) -> float:
    return expert_imbalance(torch.tensor(loads))["expert_imbalance"].item()


def test_even_loads_are_0_and_one_expert_for_everything_is_the_number_of_the_others() -> None:
    assert imbalance([5, 5, 5, 5]) == 0.0
    assert imbalance([20, 0, 0, 0]) == 3.0


def test_the_worst_layer_counts_and_one_without_tokens_does_not() -> None:
    assert imbalance([[5, 5], [8, 2], [0, 0]]) == torch.tensor(0.6).item()


def test_loads_count_the_choices_of_a_router() -> None:
    choices = torch.tensor([[[0, 2], [2, 3]], [[2, 0], [0, 2]]])
    assert expert_loads(choices, 5).tolist() == [3, 0, 4, 1, 0]


def test_a_vocabulary_of_bytes_is_given_whole_and_sums_to_one() -> None:
    logits_V = torch.randn(256, generator=torch.Generator().manual_seed(1)) * 5
    recorded = next_token(logits_V, str, target=7)
    assert sorted(map(int, recorded["tokens"])) == list(range(256))
    assert math.fsum(map(math.exp, recorded["log_probabilities"])) == pytest.approx(1.0, abs=1e-5)
    assert recorded["log_probabilities"] == sorted(recorded["log_probabilities"], reverse=True)
    assert recorded["target"] == "7"
    assert recorded["target_log_probability"] == recorded["log_probabilities"][recorded["tokens"].index("7")]
    assert "rest_count" not in recorded


def test_of_a_large_vocabulary_the_likeliest_are_named_and_the_rest_is_summed() -> None:
    logits_V = torch.arange(1000.0) / 100
    recorded = next_token(logits_V, str, target=0)
    assert recorded["tokens"] == [str(token) for token in range(999, 935, -1)]
    assert recorded["rest_count"] == 936
    named = math.fsum(map(math.exp, recorded["log_probabilities"]))
    assert named + math.exp(recorded["rest_log_probability"]) == pytest.approx(1.0, abs=1e-5)
    assert recorded["target"] == "0"
    assert recorded["target_log_probability"] < min(recorded["log_probabilities"])


def test_the_logits_of_many_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a vector .of one position., not of shape \(2, 4\)"):
        next_token(torch.zeros(2, 4), str)


def test_the_exact_entropy_is_that_of_the_whole_vocabulary_in_float64() -> None:
    logits_V = torch.randn(5000, generator=torch.Generator().manual_seed(3)) * 3
    p = logits_V.double().softmax(0)
    recorded = next_token(logits_V, str, entropy=True)
    assert recorded["entropy"] == pytest.approx(-(p * p.log()).sum().item(), abs=2e-6)
    assert "entropy" not in next_token(logits_V, str)


def test_the_entropy_of_a_certain_token_is_zero_and_that_of_a_broken_model_is_nan() -> None:
    certain_V = torch.full((300,), -math.inf)
    certain_V[7] = 0.0
    assert next_token(certain_V, str, entropy=True)["entropy"] == 0.0
    broken = next_token(torch.full((4,), math.nan), str, target=1, entropy=True)
    assert all(map(math.isnan, [*broken["log_probabilities"], broken["target_log_probability"], broken["entropy"]]))


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_it_is_the_ratio_of_the_step_to_the_weights_for_every_optimizer(make: type[torch.optim.Optimizer]) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    optimizer = make(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    updates = UpdateNorm(optimizer)
    before = torch.cat([each.detach().flatten().clone() for each in model.parameters()])
    stepped(optimizer, model)
    after = torch.cat([each.detach().flatten() for each in model.parameters()])
    torch.testing.assert_close(updates.take()["update_norm"], (after - before).norm() / before.norm())
    assert updates.take() == {}, "a step is reported once"


def test_a_part_of_a_large_model_estimates_it_and_no_more_is_kept() -> None:
    model = nn.Linear(256, 512)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    exact, estimate = UpdateNorm(optimizer), UpdateNorm(optimizer, max_elements=4096)
    assert estimate._weights().numel() <= 4096 + 2
    stepped(optimizer, model)
    assert estimate.take()["update_norm"].item() == pytest.approx(exact.take()["update_norm"].item(), rel=0.1)


def test_only_every_so_many_steps_are_measured_and_none_after_close() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = UpdateNorm(optimizer, every=3)
    measured = []
    for _ in range(6):
        stepped(optimizer, model)
        measured.append(bool(updates.take()))
    assert measured == [True, False, False, True, False, False]
    updates.close()
    stepped(optimizer, model)
    assert updates.take() == {}


def test_damaged_weights_are_news() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=float("inf"))
    updates = UpdateNorm(optimizer)
    stepped(optimizer, model)
    assert not torch.isfinite(updates.take()["update_norm"])


def test_no_value_is_read_from_the_device() -> None:
    """On the device `meta`, which has no values: reading one is an error."""
    model = Model(3, device="meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = UpdateNorm(optimizer)
    stepped(optimizer, model)
    loads = expert_loads(torch.zeros(2, 8, 2, dtype=torch.int64, device="meta"), 16)
    measured = LayerGradNorms(model).measure() | updates.take() | expert_imbalance(loads)
    assert {"update_norm", "expert_imbalance"} < measured.keys()
    assert {value.device.type for value in measured.values()} == {"meta"}


def test_numbers_below_1_are_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="every=0"):
        UpdateNorm(optimizer, every=0)
