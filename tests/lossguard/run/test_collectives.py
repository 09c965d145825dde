from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from lossguard.run import collectives

SIZES = (1, 2, 3, 5, 8, 13)


def on_ranks(size: int, call: Callable[[Any], Any]) -> list[Any]:
    """Run `call` on `size` ranks, which are threads with a gloo group; return the results in rank order."""
    store = dist.HashStore()  # type: ignore[attr-defined]  # its own list lacks it

    def on_rank(rank: int) -> Any:
        group: Any = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=120))
        group.barrier().wait()  # a rank that leaves early would break the group while others still connect
        return call(group)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(on_rank, range(size)))


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_learns_the_maxima_of_all(size: int) -> None:
    def maxima(group: Any) -> list[list[int]]:
        mine = torch.tensor([group.rank(), -group.rank(), int(group.rank() == size // 2)])
        return [collectives.maxima(mine * factor, group).tolist() for factor in (1, 7)]

    assert on_ranks(size, maxima) == [[[size - 1, 0, 1], [7 * (size - 1), 0, 7]]] * size


def test_maxima_in_the_background_are_not_confused_with_others_that_are_found_meanwhile() -> None:
    def both(group: Any) -> list[list[int]]:
        background = collectives.MaximaInBackground(torch.tensor([group.rank()]), group)
        meanwhile = collectives.maxima(torch.tensor([100 + group.rank()]), group)
        return [meanwhile.tolist(), background.wait().tolist()]

    assert on_ranks(5, both) == [[[104], [4]]] * 5


def test_a_rank_that_has_left_is_an_error_where_the_maxima_are_waited_for() -> None:
    def leave(group: Any) -> str:
        if group.rank() == 1:
            return "left"
        with pytest.raises(RuntimeError):
            collectives.MaximaInBackground(torch.tensor([0]), group).wait()
        return "noticed"

    assert on_ranks(2, leave) == ["noticed", "left"]


@pytest.mark.parametrize("size", SIZES)
def test_rank_0_gathers_the_values_of_all_ranks_in_their_order(size: int) -> None:
    def gather(group: Any) -> list[Any]:
        return collectives.gather_on_rank_0({"rank": group.rank(), "text": "x" * 100 * group.rank()}, group)

    expected = [{"rank": rank, "text": "x" * 100 * rank} for rank in range(size)]
    assert on_ranks(size, gather) == [expected, *([] for _ in range(size - 1))]


def test_the_number_of_rounds_is_the_logarithm_of_the_number_of_ranks() -> None:
    assert [len(list(collectives.distances(size))) for size in (1, 2, 3, 8, 9, 512, 4096)] == [0, 1, 2, 3, 4, 9, 12]


@pytest.fixture
def third_of_four() -> Iterator[None]:
    """This process is rank 2 of four, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=2, world_size=4)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("third_of_four")
@pytest.mark.parametrize(
    ("dimensions", "placements", "is_first", "num"),
    [
        (("data", "tensor"), [_StridedShard(0, split_factor=2), Shard(0)], True, 1),
        (("data", "tensor"), [Replicate(), Shard(0)], False, 2),
        (("data", "tensor"), [Shard(0), Replicate()], True, 2),
        (("data",), [Shard(0)], True, 2),  # ranks 0 and 2, beside 1 and 3
        (("tensor",), [Shard(0)], False, 2),  # ranks 2 and 3, beside 0 and 1
        (("tensor",), [Replicate()], False, 4),
    ],
)
def test_copies_of_a_part_lie_along_replicated_dimensions_and_along_those_that_a_tensor_does_not_know(
    dimensions: Any, placements: Any, is_first: bool, num: int
) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))[dimensions]
    part = DTensor.from_local(torch.ones(2, 8), mesh, placements, run_check=False, shape=(8, 8), stride=(8, 1))  # type: ignore[arg-type]
    assert (collectives.is_first_copy(part), collectives.num_copies(part)) == (is_first, num)
