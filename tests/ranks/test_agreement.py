"""The scenarios of `agreement`: faults occur on the last rank, orders arrive at rank 0."""

from typing import Any

import pytest

pytestmark = pytest.mark.slow
Results = list[dict[str, Any]]


def test_an_order_is_executed_by_all_ranks_at_the_same_boundary(results: Results) -> None:
    rank_0, *others = (each["an_order_of_rank_0"] for each in results)
    assert rank_0["seen"][6:8] == [[6, 6], [4, 9]]
    assert rank_0["model"] == [0, 1, 2, 3, 9, 10, 11, 12, 13]
    assert all({**each, "recorded": rank_0["recorded"]} == rank_0 for each in others)


def test_only_rank_0_opens_the_segment_and_answers(results: Results) -> None:
    applied = {"rewound_to": 4, "skip_from": 4, "skip_to": 9, "lr_scale": 0.5, "reason": "spike", "compared": False}
    segments = [["start", 0, None, None], ["rollback", 4, 1, applied]]
    assert [each["an_order_of_rank_0"]["recorded"] for each in results] == [segments, *([] for _ in results[1:])]


def test_a_remedy_is_applied_and_reverted_on_all_ranks_and_one_that_fails_on_a_rank_on_none(results: Results) -> None:
    last, ordered = len(results) - 1, [each["an_order_with_remedies"] for each in results]
    assert [each["changes"] for each in ordered] == [["on", "on here", "undone", "off"]] * last + [["on", "off"]]
    assert all(each["seen"][7:] == [[step, step] for step in range(4, 9)] for each in ordered)
    applied = ordered[0]["recorded"][1][3]
    why = f"the remedy 'fail_on_last' could not be applied: rank {last}: RuntimeError: no such group"
    assert (applied["remedies"], applied["detail"]) == ({"raise": 7}, why)


def test_all_ranks_resume_from_the_older_checkpoint_that_rank_0_was_given(results: Results) -> None:
    for each in results:
        resumed = each["an_older_checkpoint_that_rank_0_was_given"]
        assert (resumed["steps"], resumed["left"]) == ([4, 5, 6, 7], [0, 2, 4, 6, 8])
        assert resumed["refused"] == (
            "resume_from=5: no checkpoint of that step can be restored; choose one of 0, 2, 4, 6, 8"
        )


def test_an_order_that_comes_after_the_last_step_is_executed_before_the_end(results: Results) -> None:
    seen = [[step, step] for step in (*range(6), 4, 5)]
    assert all(each["an_order_at_the_last_step"]["seen"] == seen for each in results)


def test_a_signal_on_any_rank_stops_all_at_the_same_step_with_a_checkpoint(results: Results) -> None:
    for each in results:
        stopped = each["a_signal_on_the_last_rank"]
        assert [step for step, _ in stopped["seen"]] == [0, 1, 2, 3, 4]
        assert (stopped["steps"], stopped["by"]) == ([0, 2, 4, 5], 15)


def test_a_hold_holds_all_until_the_release(results: Results) -> None:
    assert all(each["a_hold_and_its_release"]["steps"] == [0, 2, 3, 4, 6] for each in results)
    assert results[0]["a_hold_and_its_release"]["recorded"][1:] == [["accepted", 1], ["accepted", 2]]


def test_a_kill_file_that_rank_0_sees_ends_a_hold_on_all_ranks(results: Results) -> None:
    assert all(each["a_kill_file_while_held"]["model"] == list(range(6)) for each in results)
    assert results[0]["a_kill_file_while_held"]["recorded"][1:] == [["accepted", 1], ["resume", 3, None, None]]


def test_a_signal_ends_a_hold_on_all_ranks(results: Results) -> None:
    ends = [(each["a_signal_while_held"]["model"], each["a_signal_while_held"]["by"]) for each in results]
    assert ends == [([0, 1, 2], 15)] * len(results)


def test_a_skipped_sample_that_comes_again_on_any_rank_is_reported_by_rank_0(results: Results) -> None:
    rank_0, *others = (each["a_skipped_sample_that_returns_on_the_last_rank"] for each in results)
    kinds = {kind for kind, _ in rank_0["events"]}
    assert kinds == {"skipped_sample_returned"}
    first = rank_0["events"][0][1]
    assert (first["rows"], first["order"], first["batch_index"] >= 60) == (4, 1, True)
    assert all(each["events"] == [] and each["steps"] == rank_0["steps"] for each in others)


@pytest.mark.parametrize("kind", ["loader", "drawn"])
def test_no_rank_trains_a_skipped_sample_again(results: Results, kind: str) -> None:
    ranks = [each["skipped_samples_of_each_kind_of_data"][kind] for each in results]
    batches = [{tuple(numbers) for _, numbers, _ in [*each["before"], *each["after"]]} for each in ranks]
    assert not batches[0] & batches[1], "each rank has batches of its own"
    for each in ranks:
        indices = [index for index, *_ in each["after"]]
        assert indices[:3] == [8, 9, 13]
        assert each["after"][:2] == each["before"][8:10]
        assert (each["bad_after"], each["events"]) == ([], [])


def test_data_that_does_not_repeat_itself_on_any_rank_ends_the_skips_on_all(results: Results) -> None:
    rank_0, *others = (each["data_that_does_not_repeat_itself_on_the_last_rank"] for each in results)
    assert rank_0["events"] == [["data_not_repeated", {"step": 39, "batch_index": 38, "rows": 4}]]
    assert (rank_0["can_skip"], [record[0] for record in rank_0["recorded"]]) == (
        False,
        ["start", "rollback", "refused"],
    )
    assert all((each["steps"], each["skips"]) == (rank_0["steps"], 1) for each in [rank_0, *others])


def test_a_restore_that_fails_on_one_rank_takes_all_back_to_the_newest_checkpoint(results: Results) -> None:
    scenarios = [each["a_restore_that_fails_on_the_last_rank"] for each in results]
    assert all(scenario["model"] == list(range(9)) for scenario in scenarios)
    refused = ["refused", 1, f"restoring failed: RuntimeError: rank {len(results) - 1}: RuntimeError: out of memory"]
    assert scenarios[0]["recorded"][1:] == [refused, ["rewind", 6, None, None]]


def test_a_restore_that_is_not_exact_on_one_rank_stops_all(results: Results) -> None:
    raised = [each["a_restore_that_is_not_exact_on_the_last_rank"]["raised"] for each in results]
    assert raised == [f"rank {len(results) - 1}: the lr was 1 and is 2"] * (len(results) - 1) + [
        "the lr was 1 and is 2"
    ]


def test_ranks_that_close_leave_no_thread_behind_and_can_exchange_again(results: Results) -> None:
    for each in results:
        before, open_, closed, open_again, closed_again = each["an_exchange_after_a_close"]["threads"]
        assert before == closed == closed_again < open_ == open_again
        assert each["an_exchange_after_a_close"]["received_order"]


def test_ranks_at_different_steps_raise_an_error(results: Results) -> None:
    last = 6 + len(results)
    raised = f"the ranks are at different steps, 7 to {last}: they cannot continue together"
    assert all(each["ranks_at_different_steps"]["raised"] == raised for each in results)


def test_short_steps_share_an_exchange_and_all_ranks_still_receive_an_order_at_the_same_boundary(
    results: Results,
) -> None:
    """Exchanges begin at boundaries 0, 1 and 17, and each is completed at the next."""
    assert all(each["an_order_from_the_fourth_boundary_on"] == {"0 s": 4, "60 s": 33} for each in results)


def test_a_non_finite_number_on_one_rank_is_non_finite_on_all(results: Results) -> None:
    mean, highest = repr((len(results) - 1) / 2), repr(float(len(results) - 1))
    numbers = [mean, highest, "nan", "nan", "nan", mean]
    assert all(each["a_nan_on_the_last_rank"]["numbers"] == numbers for each in results)


def test_all_ranks_share_the_run_of_rank_0_and_only_rank_0_records(results: Results, folder: Any) -> None:
    (first, second), *others = (each["one_run_for_all"]["ids"] for each in results)
    assert first != second
    assert all(ids == [first, second] for ids in others)
    assert [each["one_run_for_all"]["records"] for each in results] == [True] + [False] * len(others)
    assert len(list((folder / "p" / first).glob("*.spool"))) == 1


def test_an_order_ends_all_processes_at_the_same_boundary_to_be_started_again(results: Results) -> None:
    left = [each["a_restart_for_an_order"] for each in results]
    assert {(each["code"], each["steps"]) for each in left} == {(75, left[0]["steps"])}
    assert left[0]["steps"] < 99
    assert left[0]["recorded"] == [["resume", 2, None, None], ["accepted", 1], ["accepted", 2]]
    assert [each["recorded"] for each in left[1:]] == [[] for _ in left[1:]]
