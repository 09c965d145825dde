import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from lossguard.checkpoints.state import generators
from lossguard.guard.data.loaders import (
    MAX_EPOCHS,
    EpochOrders,
    changed_generators,
    own_generators,
    parts_of,
    refuse_without_order,
)
from lossguard.torch import MicroBatches


class Drawing(Sampler[int]):
    """The order of each iterator comes from what a subclass draws."""

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(range(20), key=lambda _: self.draw()))

    def draw(self) -> float:
        raise NotImplementedError


class FromTheSystem(Drawing):
    def draw(self) -> float:
        return random.SystemRandom().random()


class FromItsOwnNumPyGenerator(Drawing):
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def draw(self) -> float:
        return self.generator.random()


class FromItsOwnTorchGenerator(Drawing):
    def __init__(self) -> None:
        self.rng = torch.Generator().manual_seed(4)

    def draw(self) -> float:
        return torch.rand((), generator=self.rng).item()


class FromPython(Drawing):
    def draw(self) -> float:
        return random.random()


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 1


class WithoutLength:
    def __init__(self, *values: Any) -> None:
        self.values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


class OfOneGenerator(IterableDataset[int]):
    def __init__(self) -> None:
        self.numbers = iter(range(100))

    def __iter__(self) -> Iterator[int]:
        yield from self.numbers


class Counting(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(100))


class ResumingItself(list[int]):
    use_stateful_dataloader = True


class Sharded(list[int]):
    """As a batch sampler of accelerate."""

    def __init__(self, even_batches: bool, num_processes: int, drop_last: bool) -> None:
        super().__init__([1])
        self.even_batches, self.num_processes, self.drop_last = even_batches, num_processes, drop_last


def of(**options: Any) -> Callable[[], Any]:
    return lambda: DataLoader(range(20), **options)  # type: ignore[arg-type]


ONCE = "can be read only once: give a DataLoader whose"
ANEW = "gives another order each time: derive its order from a seed and the epoch"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "of the system": (of(sampler=FromTheSystem()), f"^the sampler FromTheSystem {ANEW}"),
    "of NumPy": (of(sampler=FromItsOwnNumPyGenerator()), f"^the sampler FromItsOwnNumPyGenerator {ANEW}"),
    "samples without a length": (
        of(sampler=WithoutLength(0, 1)),
        "^the sampler WithoutLength has no length: give it a __len__, the number of samples of an epoch$",
    ),
    "batches without a length": (
        of(batch_sampler=WithoutLength([0], [1])),
        "^the sampler WithoutLength has no length: give it a __len__, the number of batches of an epoch$",
    ),
    "a generator": (lambda: (each for each in range(3)), ONCE),
    "an iterator as dataset": (lambda: DataLoader(Numbers()), ONCE),
    "an iterator as sampler": (of(batch_sampler=iter([[0], [1]])), ONCE),
    "a dataset that keeps its iterator": (
        lambda: DataLoader(OfOneGenerator()),
        "^OfOneGenerator begins with another batch each time",
    ),
    "a stream in workers that persist": (
        lambda: DataLoader(Counting(), num_workers=1, persistent_workers=True),
        "dataset or loader Counting goes on .*: use persistent_workers=False$",
    ),
    "one that resumes by itself": (
        lambda: ResumingItself([1]),
        "use_stateful_dataloader=True has the loader resume by itself",
    ),
    "processes with different numbers of batches": (
        lambda: Sharded(False, 2, False),
        "even_batches=False gives the processes different numbers of batches",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_again_in_the_same_order_is_refused_in_one_sentence(name: str) -> None:
    build, sentence = REFUSED[name]
    before = random.getstate()
    with pytest.raises(ValueError, match=sentence) as refused:
        MicroBatches(build())
    assert "\n" not in str(refused.value)
    assert random.getstate() == before


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Counting(), num_workers=1),
        Sharded(True, 2, False),
        Sharded(False, 1, False),
        Sharded(False, 2, True),
    ],
)
def test_workers_that_end_and_processes_with_as_many_batches_each_are_taken(loader: Any) -> None:
    refuse_without_order(loader)


@pytest.mark.parametrize("kind", [FromItsOwnTorchGenerator, FromPython])
def test_a_sampler_that_draws_from_what_can_be_restored_is_taken_as_it_is(kind: type[Drawing]) -> None:
    sampler = kind()
    before = [generator.get_state().tolist() for generator in own_generators(sampler)]
    stream = MicroBatches(DataLoader(range(20), batch_size=4, sampler=sampler))  # type: ignore[arg-type]
    assert [generator.get_state().tolist() for generator in own_generators(sampler)] == before
    straight = [next(stream).tolist() for _ in range(15)]
    assert straight[:5] != straight[5:10]
    stream.seek(6)
    assert [next(stream).tolist() for _ in range(9)] == straight[6:]


def test_a_sampler_is_tried_without_copying_the_dataset() -> None:
    class Large:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> int:
            return index

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("a copy of the dataset")

    class OfDataset(FromTheSystem):
        def __init__(self, dataset: Large) -> None:
            self.dataset = dataset

    dataset = Large()
    with pytest.raises(ValueError, match="another order"):
        refuse_without_order(DataLoader(dataset, sampler=OfDataset(dataset)))  # type: ignore[arg-type]


def test_the_parts_of_a_loader_are_found_once_each() -> None:
    loader: Any = DataLoader(range(20), batch_size=4, shuffle=True, generator=torch.Generator())  # type: ignore[arg-type]
    names = [type(part).__name__ for part in parts_of(loader)]
    assert sorted(names) == ["BatchSampler", "DataLoader", "RandomSampler", "range"]
    assert len(own_generators(loader)) == 1


def draw(orders: EpochOrders, epoch: int, *, is_due: bool = True) -> tuple[int, float]:
    with orders.drawing(epoch, is_due=is_due):
        return int(torch.randint(10**9, ())), random.random()


def test_the_order_of_an_epoch_is_drawn_once_and_then_the_same() -> None:
    orders = EpochOrders([1])
    first, second = draw(orders, 0), draw(orders, 1)
    assert first != second
    before = str(generators())
    assert (draw(orders, 0), draw(orders, 1), draw(orders, 0, is_due=False)) == (first, second, first)
    assert str(generators()) == before


def test_a_state_of_plain_values_gives_the_same_order_in_a_new_process() -> None:
    orders, again = EpochOrders([1]), EpochOrders([1])
    drawn = draw(orders, 3)
    again.load_state_dict(json.loads(json.dumps(orders.state_dict())))
    assert draw(again, 3) == drawn


def test_only_the_newest_epochs_are_in_a_checkpoint_and_one_that_goes_back_has_its_own() -> None:
    orders = EpochOrders([1])
    drawn = {epoch: draw(orders, epoch) for epoch in range(MAX_EPOCHS)}
    early = orders.state_dict()
    for epoch in range(MAX_EPOCHS, 2 * MAX_EPOCHS):
        draw(orders, epoch)
    assert [int(epoch) for epoch in orders.state_dict()["drawn"]] == list(range(MAX_EPOCHS, 2 * MAX_EPOCHS))
    orders.load_state_dict(early)
    assert draw(orders, MAX_EPOCHS - 1) == drawn[MAX_EPOCHS - 1]


@pytest.mark.parametrize(("base_seed", "changed"), [(True, set()), (False, {"torch"})])
def test_the_seed_of_the_workers_is_no_order(base_seed: bool, changed: set[str]) -> None:
    before = generators()
    torch.empty((), dtype=torch.int64).random_()
    assert changed_generators(before, generators(), base_seed=base_seed) == changed
