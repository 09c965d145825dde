from collections.abc import Iterator

import pytest

from lossguard.batches import BatchSource


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
