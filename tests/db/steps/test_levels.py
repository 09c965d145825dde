"""Which buckets cover a range of steps."""

from db.steps import levels


def test_level_ranges_cover_a_range_once_and_reach_into_no_open_bucket() -> None:
    width = levels.NARROWEST
    spans = [(0, 9000, 9000), (37, 8995, 9000), (5, 9, 9), (17, 70, 64), (0, 5000, width), (100, 5000, 4999)]
    for low, high, sealed in spans:
        parts = list(levels.split_by_level(4, low, high, sealed))
        assert [part[1] for part in parts] == [low, *(part[2] for part in parts[:-1])]
        assert parts[-1][2] == high
        assert all(level == 0 or (end <= sealed and begin % levels.width(level) == 0) for level, begin, end in parts)
