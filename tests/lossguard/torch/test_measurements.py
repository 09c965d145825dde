"""Gradient norms of groups of layers."""

import pytest
import torch
from torch import nn

from lossguard.torch import LayerGradNorms
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


def test_no_value_is_read_from_the_device() -> None:
    norms = LayerGradNorms(Model(3, device="meta")).measure()
    assert {norm.device.type for norm in norms.values()} == {"meta"}
