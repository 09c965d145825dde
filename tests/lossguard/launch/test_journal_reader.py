from typing import Any

from lossguard.launch.journal_reader import LONG_QUIET_SECONDS, QUIET_SECONDS, JournalRows
from lossguard.sources.rows import Row


def entry(step: int, at: float = 0.0, *, complete: bool = False, **values: float) -> dict[str, Any]:
    return {"step": step, "time": at, "values": values, "complete": complete}


def test_scalars_of_one_step_become_one_row_when_a_later_step_comes() -> None:
    rows = JournalRows()
    assert rows.add_entry(entry(1, 5.0, loss=2.0), 0) == []
    assert rows.add_entry(entry(1, 6.0, lr=0.1), 10) == []
    assert rows.begin == 0
    assert rows.add_entry(entry(2, 7.0, loss=1.0), 20) == [Row(1, 5.0, {"loss": 2.0, "lr": 0.1})]
    assert rows.begin == 20


def test_a_complete_row_does_not_wait_and_that_of_a_loop_that_hangs_is_returned_in_the_end() -> None:
    rows = JournalRows()
    assert rows.add_entry(entry(1, 5.0, complete=True, loss=2.0), 0) == [Row(1, 5.0, {"loss": 2.0})]
    assert rows.begin is None
    rows.add_entry(entry(2, 6.0, loss=2.0, lr=0.1), 0)
    rows.add_entry(entry(3, 7.0, loss=2.0), 0)
    assert rows.flush_if_quiet(7.0 + LONG_QUIET_SECONDS) == [Row(3, 7.0, {"loss": 2.0})]
    assert rows.flush_if_quiet(100.0) == []


def test_a_row_with_its_usual_names_waits_only_a_moment() -> None:
    rows = JournalRows()
    rows.add_entry(entry(1, 0.0, loss=2.0, lr=0.1), 0)
    rows.add_entry(entry(2, 1.0, loss=2.0), 1)
    assert rows.flush_if_quiet(1.0 + QUIET_SECONDS) == []  # lr has not come yet
    rows.add_entry(entry(2, 2.0, lr=0.1), 2)
    assert rows.flush_if_quiet(2.0 + QUIET_SECONDS / 2) == []
    assert rows.flush_if_quiet(2.0 + QUIET_SECONDS) == [Row(2, 1.0, {"loss": 2.0, "lr": 0.1})]


def test_the_result_of_an_evaluation_does_not_change_which_names_are_usual() -> None:
    rows = JournalRows()
    rows.add_entry(entry(6, 0.0, loss=2.0), 0)
    rows.flush()
    rows.add_entry(entry(6, 9.0, eval_loss=3.0), 1)
    assert rows.add_entry(entry(7, 10.0, loss=2.0), 2) == []
    assert rows.flush_if_quiet(10.0 + QUIET_SECONDS) == [Row(7, 10.0, {"eval_loss": 3.0, "loss": 2.0})]
    assert rows.add_entry(entry(8, 11.0, loss=2.0), 3) == []
    assert rows.flush_if_quiet(11.0 + QUIET_SECONDS) == [Row(8, 11.0, {"loss": 2.0})]


def test_an_evaluation_at_the_end_is_not_lost() -> None:
    rows = JournalRows()
    rows.add_entry(entry(6, 0.0, loss=2.0), 0)
    rows.flush()
    rows.add_entry(entry(6, 9.0, eval_loss=3.0), 1)
    assert rows.close() == [Row(6, None, {"eval_loss": 3.0})]
    assert (rows.close(), rows.begin) == ([], None)
