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
