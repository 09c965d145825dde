from benchmarks.growth.curve import Curve
from benchmarks.growth.tables import lines


def test_a_curve_is_a_row_of_its_costs_its_growth_and_the_word_for_it() -> None:
    curve = Curve("overview", "SQLite", "ms", {10: 1.234, 100: 12.34, 1_000: 1_234.4})
    head, rule, row = lines("stored runs", [10, 100, 1_000], [curve])
    assert head == "| stored runs | store | 10 | 100 | 1,000 | for ten times as many | growth |"
    assert rule.count("|") == head.count("|")
    assert row == "| overview | SQLite | 1.23 ms | 12.3 ms | 1,234 ms | x 31.63, at last x 100.03 | above linear |"
