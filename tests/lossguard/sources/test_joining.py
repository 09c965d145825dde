import pytest

from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.names import NameMap
from lossguard.sources.rows import HOLD_SECONDS, Row
from lossguard.sources.source_run import BadSource


def joiner() -> Joiner:
    return Joiner(NameMap())


def shown(rows: list[PlacedRow]) -> list[tuple[int, list[str], object]]:
    return [(each.row.step, sorted(each.row.values), each.position) for each in rows]


def test_a_row_is_complete_when_a_later_step_comes() -> None:
    rows = joiner()
    assert rows.add(Row(1, None, {"loss": 1.0}), "a", 0.0) == []
    assert rows.add(Row(1, None, {"lr": 1.0}), "b", 0.0) == []
    assert shown(rows.add(Row(2, None, {"loss": 1.0}), "c", 0.0)) == [(1, ["loss", "lr"], "a")]
    assert shown(rows.flush(0.0, final=True)) == [(2, ["loss"], "c")]


def test_a_row_with_all_usual_names_waits_for_nothing_and_another_one_a_moment() -> None:
    rows = joiner()
    for step in (1, 2, 3):
        rows.add(Row(step, None, {"loss": 1.0, "lr": 1.0}), step, 0.0)
    assert shown(rows.flush(0.0)) == [(3, ["loss", "lr"], 3)]
    rows.add(Row(4, None, {"loss": 1.0}), 4, 0.0)
    assert rows.flush(HOLD_SECONDS / 2) == []
    assert shown(rows.flush(HOLD_SECONDS)) == [(4, ["loss"], 4)]


def test_a_value_that_comes_after_its_row_joins_the_next_one() -> None:
    """An evaluation takes minutes: the row of its step is recorded before."""
    rows = joiner()
    rows.add(Row(1, None, {"loss": 1.0}), 1, 0.0)
    rows.flush(0.0, final=True)
    assert rows.add(Row(1, None, {"val loss": 2.0}), 2, 0.0) == []
    rows.add(Row(2, None, {"loss": 1.0}), 3, 0.0)
    assert shown(rows.flush(0.0, final=True)) == [(2, ["loss", "val loss"], 3)]


def test_an_evaluation_at_the_end_is_not_lost() -> None:
    rows = joiner()
    rows.add(Row(1, None, {"loss": 1.0}), 1, 0.0)
    assert shown(rows.flush(HOLD_SECONDS)) == [(1, ["loss"], 1)]
    rows.add(Row(1, None, {"val loss": 2.0}), 2, 0.0)
    assert rows.flush(0.0) == []
    assert shown(rows.flush(0.0, final=True)) == [(1, ["val loss"], 1)]
    assert rows.flush(0.0, final=True) == []


def test_two_runs_that_write_one_source_are_refused_and_restarts_in_quick_succession_are_not() -> None:
    rows = joiner()
    for _ in range(8):
        for step in (100, 101, 102):
            rows.add(Row(step, None, {"loss": 1.0}), step, 0.0)
    both = [Row(first + step, None, {"loss": 1.0}) for step in range(20) for first in (200, 10)]
    with pytest.raises(BadSource, match="two runs write it"):
        _ = [rows.add(each, 0, 0.0) for each in both]


def test_a_file_that_is_written_anew_repeats_its_rows_also_where_a_name_was_a_metric_at_first() -> None:
    """Lightning writes its whole CSV again when a metric comes that it did not know."""
    names = NameMap()
    recorded = {step: names.mapped({"loss": 1.0, "num_tokens": 512.0}) for step in range(3)}
    rows = Joiner(names, live_rows=lambda: recorded)
    for step in range(3):
        rows.add(Row(step, None, {"loss": 1.0, "num_tokens": 512.0}), step, 0.0)
    rows.flush(0.0, final=True)
    assert names.release("tokens") == "num_tokens"
    rows.begin_anew()
    written = [placed for step in range(5) for placed in rows.add(Row(step, None, {"loss": 1.0, "a": 2.0}), step, 0.0)]
    assert [placed.row.step for placed in written] == [3]
