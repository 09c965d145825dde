import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.steps import buckets
from db.steps.archived.files import BUCKET, archivable


@pytest.mark.parametrize(
    ("first", "last", "forks", "expected"),
    [
        (0, 0, [], []),
        (0, 255, [], []),
        (0, 256, [], [(0, 256)]),
        (0, 1023, [], [(0, 768)]),
        (100, 1000, [], [(256, 768)]),
        (0, 2000, [600], [(0, 512), (768, 1792)]),
        (0, 2000, [512, 5000], [(0, 1792)]),
    ],
)
def test_the_buckets_of_a_beginning_of_an_end_and_of_a_fork_stay(
    first: int, last: int, forks: list[int], expected: list[tuple[int, int]]
) -> None:
    assert archivable(first, last, forks) == expected


@given(
    first=st.integers(0, 3000),
    length=st.integers(1, 6000),
    cuts=st.lists(st.integers(0, 9000), max_size=4),
    level=st.integers(1, 5),
)
def test_what_roll_ups_leave_over_at_the_ends_of_any_line_stays(
    first: int, length: int, cuts: list[int], level: int
) -> None:
    last = first + length - 1
    forks = [cut for cut in cuts if first <= cut <= last]
    archived = archivable(first, last, forks)
    edges = sorted({first, *forks, last + 1})
    for low, high in [(low, high) for low in edges for high in edges if low < high]:
        for at_level, begin, end in buckets.split_by_level(level, low, high, last + 1):
            if at_level == 0:
                assert not [part for part in archived if part[0] < end and begin < part[1]]
    assert all(high % BUCKET == 0 and high <= last for _, high in archived)
