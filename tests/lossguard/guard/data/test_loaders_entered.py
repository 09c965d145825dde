from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader

from lossguard.guard.data.loaders import entered_at, indices_in


def test_a_loader_that_is_entered_later_keeps_what_it_was_given() -> None:
    def collate(samples: list[int]) -> list[int]:
        return [-sample for sample in samples]

    def start(worker: int) -> None: ...

    loader: Any = DataLoader(range(20), batch_size=4, collate_fn=collate, worker_init_fn=start)  # type: ignore[arg-type]
    entered = entered_at(loader, 3)
    assert list(entered) == [[-12, -13, -14, -15], [-16, -17, -18, -19]]
    assert len(entered) == 2
    assert (entered.worker_init_fn, entered.num_workers, entered.pin_memory) == (start, 0, False)


def test_all_batches_of_the_epoch_are_changed_before_the_first_ones_are_left_out() -> None:
    def without_the_first(batches: Iterable[list[int]], *, shortest: int | None) -> Iterator[list[int]]:
        assert shortest == 2
        return iter(list(batches)[1:])

    loader: Any = DataLoader(range(10), batch_size=4)  # type: ignore[arg-type]
    assert [batch.tolist() for batch in entered_at(loader, 1, change=without_the_first)] == [[8, 9]]


def test_the_indices_of_batches_are_known_without_the_dataset_and_whatever_the_sampler_gives() -> None:
    class Unread:
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("a sample was loaded")

    data: Any = Unread()
    own: Any = [(torch.tensor(3), 1), (4, 5)]
    assert indices_in(DataLoader(data, batch_sampler=own), 0, range(1, 2)) == [[4, 5]]
    whole = BatchSampler(range(6), 2, drop_last=False)
    assert indices_in(DataLoader(data, batch_size=None, sampler=whole), 0, range(2)) == [[0, 1], [2, 3]]
    assert indices_in(DataLoader(data, batch_size=None, sampler=range(6), num_workers=2), 0, range(4, 6)) == [
        4,
        5,
    ]
