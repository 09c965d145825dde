from hypothesis import given
from hypothesis import strategies as st

from lossguard import Ledger, Skip

ranges = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda ends: Skip(min(ends), max(ends)))


@given(st.lists(ranges, max_size=8), st.integers(0, 60))
def test_the_next_free_batch_is_the_first_one_that_no_range_covers(skips: list[Skip], index: int) -> None:
    covered = {batch for skip in skips for batch in range(skip.skip_from, skip.skip_to)}
    expected = next(batch for batch in range(index, 200) if batch not in covered)
    assert Ledger(skips).next_free(index) == expected


def test_a_range_is_remembered_once_with_its_reason() -> None:
    ledger = Ledger([Skip(5, 9, "spike"), Skip(5, 9, "spike"), Skip(3, 3, "empty")])
    assert ledger.skips == [Skip(5, 9, "spike")]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 10)), max_size=5), st.integers(0, 60))
def test_the_batch_of_a_step_is_the_one_that_a_walk_without_the_skips_reaches(
    skips: list[tuple[int, int]], number: int
) -> None:
    ledger = Ledger(Skip(begin, begin + width) for begin, width in skips)
    index = ledger.next_free(0)
    for _ in range(number):
        index = ledger.next_free(index + 1)
    assert ledger.nth_free(number) == index
