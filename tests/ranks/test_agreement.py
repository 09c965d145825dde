"""What `agreement` tells: the last rank is where trouble is, rank 0 is where orders come."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ranks")]
Told = list[dict[str, Any]]


def test_an_order_is_executed_by_all_ranks_at_the_same_boundary(told: Told) -> None:
    rank_0, *others = (each["an_order_of_rank_0"] for each in told)
    assert rank_0["seen"][6:8] == [[6, 6], [4, 9]]
    assert rank_0["model"] == [0, 1, 2, 3, 9, 10, 11, 12, 13]
    assert all({**each, "told": rank_0["told"]} == rank_0 for each in others)


def test_rank_0_alone_opens_the_segment_and_answers(told: Told) -> None:
    applied = {"rewound_to": 4, "skip_from": 4, "skip_to": 9, "lr_scale": 0.5, "reason": "spike"}
    segments = [["start", 0, None, None], ["rollback", 4, 1, applied]]
    assert [each["an_order_of_rank_0"]["told"] for each in told] == [segments, *([] for _ in told[1:])]


def test_an_order_that_comes_after_the_last_step_is_executed_before_the_end(told: Told) -> None:
    seen = [[step, step] for step in (*range(6), 4, 5)]
    assert all(each["an_order_at_the_last_step"]["seen"] == seen for each in told)


def test_a_signal_on_any_rank_stops_all_at_the_same_step_with_a_checkpoint(told: Told) -> None:
    for each in told:
        stopped = each["a_signal_on_the_last_rank"]
        assert [step for step, _ in stopped["seen"]] == [0, 1, 2, 3, 4]
        assert (stopped["steps"], stopped["by"]) == ([0, 2, 4, 5], 15)


def test_a_hold_holds_all_until_the_release(told: Told) -> None:
    assert all(each["a_hold_and_its_release"]["steps"] == [0, 2, 3, 4, 6] for each in told)
    assert told[0]["a_hold_and_its_release"]["told"][1:] == [["accepted", 1], ["accepted", 2]]


def test_a_signal_ends_a_hold_on_all_ranks(told: Told) -> None:
    ends = [(each["a_signal_while_held"]["model"], each["a_signal_while_held"]["by"]) for each in told]
    assert ends == [([0, 1, 2], 15)] * len(told)


def test_a_restore_that_breaks_off_on_one_rank_takes_all_back_to_the_newest_checkpoint(told: Told) -> None:
    stories = [each["a_restore_that_breaks_off_on_the_last_rank"] for each in told]
    assert all(story["model"] == list(range(9)) for story in stories)
    refused = ["refused", 1, f"restoring failed: RuntimeError: rank {len(told) - 1}: RuntimeError: out of memory"]
    assert stories[0]["told"][1:] == [refused, ["rewind", 6, None, None]]


def test_a_restore_that_is_not_exact_on_one_rank_stops_all(told: Told) -> None:
    raised = [each["a_restore_that_is_not_exact_on_the_last_rank"]["raised"] for each in told]
    assert raised == [f"rank {len(told) - 1}: the lr was 1 and is 2"] * (len(told) - 1) + ["the lr was 1 and is 2"]


def test_ranks_that_close_leave_no_thread_behind_and_can_agree_again(told: Told) -> None:
    for each in told:
        before, open_, closed, open_again, closed_again = each["a_close_and_another_word"]["threads"]
        assert before == closed == closed_again < open_ == open_again
        assert each["a_close_and_another_word"]["heard"]


def test_ranks_that_are_at_different_steps_find_out(told: Told) -> None:
    last = 6 + len(told)
    raised = f"the ranks are at different steps, 7 to {last}: they cannot continue together"
    assert all(each["ranks_at_different_steps"]["raised"] == raised for each in told)


def test_short_steps_share_an_exchange_and_all_ranks_still_learn_of_an_order_at_the_same_boundary(told: Told) -> None:
    """Exchanges begin at boundaries 0, 1 and 17, and each is taken up at the next."""
    assert all(each["an_order_from_the_fourth_boundary_on"] == {"0 s": 4, "60 s": 33} for each in told)


def test_a_number_that_is_not_finite_on_any_rank_is_so_for_all(told: Told) -> None:
    mean, highest = repr((len(told) - 1) / 2), repr(float(len(told) - 1))
    numbers = [mean, highest, "nan", "nan", "nan", mean]
    assert all(each["a_nan_on_the_last_rank"]["numbers"] == numbers for each in told)


def test_all_ranks_have_the_run_of_rank_0_which_alone_records(told: Told, folder: Any) -> None:
    (first, second), *others = (each["one_run_for_all"]["ids"] for each in told)
    assert first != second
    assert all(ids == [first, second] for ids in others)
    assert [each["one_run_for_all"]["records"] for each in told] == [True] + [False] * len(others)
    assert len(list((folder / "p" / first).glob("*.spool"))) == 1
