from collections.abc import Iterator

import pytest

from lossguard.guard.data.source import BatchSource


class Order:
    """An endless data order."""

    def __getitem__(self, index: int) -> str:
        return f"batch {index}"


class Loader:
    """Re-iterable without an index, as a DataLoader is."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_an_index_is_a_jump() -> None:
    assert BatchSource(Order()).get(10**9) == "batch 1000000000"


def test_a_sequence_starts_over_at_its_end() -> None:
    assert [BatchSource("abc").get(index) for index in (0, 2, 3, 7)] == ["a", "c", "a", "b"]


def test_an_iterable_is_skipped_by_consuming_and_starts_over() -> None:
    source = BatchSource(Loader())
    assert [source.get(index) for index in (0, 2, 3, 7, 1)] == [0, 2, 0, 1, 1]


def test_an_iterator_ends_and_cannot_go_back() -> None:
    source = BatchSource(iter("abc"))
    assert source.get(1) == "b"
    assert source.first_available(0) == 2
    with pytest.raises(StopIteration):
        source.get(3)


def test_an_empty_iterable_ends_at_once() -> None:
    with pytest.raises(StopIteration):
        BatchSource(set()).get(0)


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
