from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lossguard.guard.data.source import BatchSource
from lossguard.torch import Batches


class Order:
    """An endless data order."""

    def __getitem__(self, index: int) -> str:
        return f"batch {index}"


class Loader:
    """Re-iterable without an index, as a DataLoader is."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_an_index_is_a_jump() -> None:
    assert BatchSource(Order()).get(10**9) == "batch 1000000000"


def test_a_sequence_starts_over_at_its_end() -> None:
    source = BatchSource("abc")
    assert [source.get(index) for index in (0, 2, 3, 7)] == ["a", "c", "a", "b"]
    assert [source.pass_of(index) for index in (0, 2, 3, 7)] == [0, 0, 1, 2]
    assert BatchSource(Order()).pass_of(10**9) == 0


def test_an_iterable_is_skipped_by_consuming_and_starts_over() -> None:
    source = BatchSource(Loader())
    assert [source.get(index) for index in (0, 2, 3, 7, 1)] == [0, 2, 0, 1, 1]
    assert BatchSource(iter("abc")).first_available(0) == 0


def test_a_loader_of_torch_becomes_batches() -> None:
    loader: Any = DataLoader(range(40), batch_size=4, shuffle=True)  # type: ignore[arg-type]
    source = BatchSource(loader)
    assert isinstance(source.state, Batches)
    first = [source.get(index).tolist() for index in range(15)]
    torch.rand(3)
    assert [source.get(index).tolist() for index in range(2, 15)] == first[2:]


@pytest.mark.parametrize("stream", [Numbers(), DataLoader(Numbers(), batch_size=None)], ids=["itself", "in a loader"])
def test_an_iterable_dataset_is_read_in_order_although_it_inherits_an_index_that_raises(stream: Any) -> None:
    source = BatchSource(stream)
    assert [int(source.get(index)) for index in (0, 1, 2, 4, 3)] == [0, 1, 2, 1, 0]


def test_batches_that_draw_from_the_random_numbers_of_the_loop_draw_others_after_a_skip() -> None:
    class Draws:
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.rand(3)

    def read(*skips: tuple[int, int]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        source = BatchSource(Draws())
        return [source.get(index, since=since) for since, index in skips]

    straight, skipping = read((0, 0), (1, 1), (2, 2)), read((0, 0), (1, 4), (5, 5))
    assert torch.equal(straight[0], skipping[0])
    assert not torch.equal(straight[1], skipping[1])
    assert all(torch.equal(*pair) for pair in zip(skipping, read((0, 0), (1, 4), (5, 5)), strict=True))
    assert torch.equal(read((0, 3))[0], read((0, 3))[0])
    assert not torch.equal(read((0, 3))[0], straight[0])


def test_a_skip_leaves_the_random_numbers_of_the_loop_as_they_are_where_the_batches_do_not_need_them() -> None:
    before = torch.get_rng_state()
    source = BatchSource([torch.arange(4), torch.arange(4) + 1])
    assert source.get(3, since=0).tolist() == [1, 2, 3, 4]
    source.get(9, since=4)
    assert torch.equal(torch.get_rng_state(), before)
    BatchSource(range(9)).get(3, since=1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_no_batches_at_all_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match="batches is empty"):
        BatchSource([])


def test_batches_that_can_jump_learn_of_the_skip() -> None:
    class Jumping:
        def __init__(self) -> None:
            self.seeks: list[tuple[int, int]] = []

        def seek(self, index: int, *, since: int) -> None:
            self.seeks.append((index, since))

        def __getitem__(self, index: int) -> int:
            return index

        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: dict[str, int]) -> None: ...

    batches = Jumping()
    source = BatchSource(batches)
    assert source.state is batches
    assert (source.get(7, since=4), source.get(8)) == (7, 8)
    assert batches.seeks == [(7, 4), (8, 8)]


def test_the_state_of_other_batches_is_not_touched() -> None:
    class WithState(list[int]):
        def state_dict(self) -> None:
            raise AssertionError

        load_state_dict = state_dict

    assert BatchSource(WithState([1])).state is None
