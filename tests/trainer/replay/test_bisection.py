"""Which of many batches do it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from trainer.replay.bisection import bisect


@given(st.data())
def test_every_stretch_of_culprits_is_found_with_few_replays(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 300))
    first = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(first + 1, length))
    asked = []

    def troubled(part: Sequence[int]) -> bool:
        asked.append(part)
        return any(1000 + first <= batch < 1000 + end for batch in part)

    found = bisect(range(1000, 1000 + length), troubled, first_end=first + 1)
    assert found == (1000 + first, 1000 + end)
    assert len(asked) <= 2 * length.bit_length()


def test_batches_that_do_it_only_together_are_both_within() -> None:
    assert bisect(range(50), lambda part: {7, 31} <= set(part), first_end=50) == (7, 32)
