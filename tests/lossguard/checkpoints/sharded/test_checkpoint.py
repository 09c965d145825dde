from collections import OrderedDict

import torch

from lossguard.checkpoints.sharded.checkpoint import join_tensors, split_tensors, tensors_in


def test_a_state_is_split_into_its_tensors_by_path_and_joined_again() -> None:
    moments, weight = torch.ones(2), torch.zeros(2, 3)
    state = OrderedDict(state={0: {"moments": moments}}, groups=[{"lr": 0.1, "weight": weight}], none=None)
    skeleton, shards = split_tensors("optimizer", state)
    assert skeleton == OrderedDict(state={0: {"moments": None}}, groups=[{"lr": 0.1, "weight": None}], none=None)
    assert list(shards) == ["optimizer.state.0.moments", "optimizer.groups.0.weight"]
    assert list(tensors_in("optimizer", state)) == list(shards)
    joined = join_tensors("optimizer", skeleton, {path: shard.local for path, shard in shards.items()})
    assert type(joined) is OrderedDict
    assert torch.equal(joined["state"][0]["moments"], moments)
    assert torch.equal(joined["groups"][0]["weight"], weight)
    assert joined["groups"][0]["lr"] == 0.1
