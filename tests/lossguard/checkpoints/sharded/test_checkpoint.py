from collections import OrderedDict

import torch

from lossguard.checkpoints.sharded.checkpoint import copy_shards, join_tensors, split_tensors
from lossguard.checkpoints.sharded.tensor_shard import TensorShard


def test_a_state_is_split_into_its_tensors_by_path_and_joined_again() -> None:
    moments, weight = torch.ones(2), torch.zeros(2, 3)
    step = torch.tensor(3.0)
    state = OrderedDict(
        state={0: {"moments": moments, "step": step}}, groups=[{"lr": 0.1, "weight": weight}], none=None
    )
    split, shards = split_tensors({"optimizer": state})
    groups = [{"lr": 0.1, "weight": None}]
    assert split == {"optimizer": OrderedDict(state={0: {"moments": None, "step": step}}, groups=groups, none=None)}
    assert list(shards) == ["optimizer.state.0.moments", "optimizer.groups.0.weight"]
    joined = join_tensors(split, {path: shard.local for path, shard in shards.items()})["optimizer"]
    assert type(joined) is OrderedDict
    assert torch.equal(joined["state"][0]["moments"], moments)
    assert torch.equal(joined["groups"][0]["weight"], weight)
    assert joined["groups"][0]["lr"] == 0.1


def test_what_is_copied_from_memory_shares_none_of_it() -> None:
    weight, bias = TensorShard.of(torch.ones(2)), torch.ones(1)
    for copied in copy_shards({"model": {"weight": weight, "bias": bias}}, {})["model"].values():
        copied.add_(1)  # as training does
    assert (weight.local.tolist(), bias.tolist()) == ([1.0, 1.0], [1.0])
