import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossguard
from lossguard import Ledger, Limits, Order, OrderKind, Skip
from lossguard.guard.restart_state import RestartState
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.recorded import offline, records
from tests.lossguard.restarted import Killed, Script, kill
from tests.lossguard.scripted import new_order, rollback


def plain(until: int, *skips: tuple[int, int]) -> list[int]:
    """What a run without faults is trained on, with these batches left out."""
    ledger, batch = Ledger(Skip(*skip) for skip in skips), 0
    model: list[int] = []
    while len(model) < until:
        batch = ledger.next_free(batch)
        model.append(batch)
        batch += 1
    return model


def spike(id: int = 1, to: int = 4, skip: tuple[int, int] = (4, 9), **fields: Any) -> Order:
    return rollback(id=id, key=f"k{id}", rewind_to=to, skip_from=skip[0], skip_to=skip[1], reason="spike", **fields)


def left_for_an_order(folder: Path) -> Script:
    """A script whose first process has left for its order."""
    script = Script(folder, {7: [spike()]})
    with pytest.raises(SystemExit):
        script.start(12)
    return script


def segments(run: lossguard.Run) -> list[tuple[str, int, str | None]]:
    return [(line["reason"], line["fork_step"], line["key"]) for line in records(run) if "segment" in line]


def refusals(run: lossguard.Run) -> list[tuple[str, str | None]]:
    return [(line["detail"], line.get("refusal")) for line in records(run) if line.get("state") == "failed"]


def test_without_an_order_each_start_resumes_from_the_newest_checkpoint(tmp_path: Path) -> None:
    script = Script(tmp_path, {})
    assert script.start(5) == plain(5)
    assert script.start(9) == plain(9)
    assert segments(script.run) == [("start", 0, None), ("resume", 4, None)]
    assert script.plan.newest_step is None
    assert script.plan.lr_scale == 1.0


def test_an_order_ends_the_process_and_the_next_one_goes_back_and_skips(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(tmp_path, {7: [spike()]})
    with pytest.raises(SystemExit) as left:
        script.start(12)
    assert left.value.code == 75
    assert script.start(12) == plain(12, (4, 9))
    assert script.loaded == [None, 4]
    assert segments(script.run) == [("start", 0, None), ("rollback", 4, "k1")]
    (line,) = [line for line in records(script.run) if line.get("key") == "k1"]
    assert line["applied"] == {"rewound_to": 4, "reason": "spike", "skip_from": 4, "skip_to": 9}
    assert caplog.messages == [
        "leaving with exit code 75, to be started again at step 4",
        "rolled back to step 4, skipping 5 batches (4-8): spike",
    ]
    states = [line["finish"] for line in records(script.run) if "finish" in line]
    assert states == ["interrupted", "finished"]


MOMENTS = st.sampled_from(["removed", "loaded", "resumed", "step 5", "step 8"])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    orders=st.dictionaries(st.integers(3, 14), st.tuples(st.integers(2, 12), st.integers(1, 6)), max_size=4),
    kills=st.sets(MOMENTS, max_size=3),
)
def test_any_orders_and_kills_train_on_what_a_plain_run_of_the_filtered_order_does(
    tmp_path_factory: pytest.TempPathFactory, orders: dict[int, tuple[int, int]], kills: set[str]
) -> None:
    """By the step at which it comes, an order goes back to a step, and skips so many batches from the one of that."""
    script = Script(tmp_path_factory.mktemp("run"), {})
    script.on = dict.fromkeys(kills, kill)
    skips: dict[str | None, tuple[int, int]] = {}
    for number, (step, (to, width)) in enumerate(orders.items(), start=1):
        skips[f"k{number}"] = (12 * number, 12 * number + width)
        script.orders[step] = [spike(number, to=to, skip=skips[f"k{number}"])]
    model = script.run_to_end(40)
    executed = [key for _, _, key in segments(script.run) if key]
    answered = [line["key"] for line in records(script.run) if "answer" in line]
    assert sorted(executed + answered) == sorted(f"k{number + 1}" for number in range(len(orders)))
    assert model == plain(40, *(skips[key] for key in executed))


@pytest.mark.parametrize("moment", ["removed", "loaded", "resumed", "step 5", "step 6"])
def test_a_process_that_is_killed_after_the_order_leaves_it_to_the_next_one(tmp_path: Path, moment: str) -> None:
    script = left_for_an_order(tmp_path)
    script.on[moment] = kill
    with pytest.raises(Killed):
        script.start(12)
    assert script.run_to_end(12) == plain(12, (4, 9))
    assert [key for _, _, key in segments(script.run)].count("k1") == 1
    assert all(step is None or step <= 6 for step in script.loaded)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_is_killed_while_it_keeps_the_order_executes_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    script = Script(tmp_path, {7: [spike()]})
    save = RestartState.save

    def killed(state: RestartState, directory: Path) -> None:
        if after:
            save(state, directory)
        monkeypatch.undo()
        raise Killed

    monkeypatch.setattr(RestartState, "save", killed)
    with pytest.raises(Killed):
        script.start(12)
    assert script.run_to_end(12) == plain(12, (4, 9)), "the order is still open, or kept"
    assert [key for _, _, key in segments(script.run)].count("k1") == 1


def test_an_order_that_was_executed_is_not_kept_even_if_the_file_could_not_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = left_for_an_order(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RestartState, "save", lambda state, directory: kill())
        with pytest.raises(Killed):
            script.start(12)
    assert script.start(12) == plain(12, (4, 9))
    assert segments(script.run)[1:] == [("rollback", 4, "k1"), ("resume", 4, None)]


def test_a_checkpoint_of_a_discarded_branch_is_never_loaded_even_if_the_script_keeps_it(tmp_path: Path) -> None:
    script = Script(tmp_path, {9: [spike(to=2, skip=(2, 5))]})
    script.removes_discarded = False
    with pytest.raises(SystemExit):
        script.start(20)
    script.on["step 3"] = kill
    with pytest.raises(Killed):
        script.start(20)
    assert script.on_disk() == [2, 4, 6, 8]
    assert script.start(12) == plain(12, (2, 5))
    assert script.loaded == [None, 2, 2]
    restorable = [line["restorable"] for line in records(script.run) if "restorable" in line]
    assert [4] not in restorable[-3:], "what was discarded is not offered either"
    assert script.start(14) == plain(14, (2, 5)), "checkpoints of later steps are the run's own"
    assert script.loaded[-1] == 12


def test_a_step_that_must_not_be_loaded_is_refused_in_one_sentence(tmp_path: Path) -> None:
    left_for_an_order(tmp_path)
    plan = lossguard.restart(offline(tmp_path, run_id="r"))
    assert plan.newest_step == 4
    with pytest.raises(
        ConfigurationError, match="step 6 was loaded, which an order has discarded, as all after step 4"
    ):
        plan.resumed(6)
    plan.run.finish(timeout=1.0)


def test_a_step_before_the_ordered_one_may_be_loaded_if_the_newer_checkpoint_is_damaged(tmp_path: Path) -> None:
    script = left_for_an_order(tmp_path)
    (script.checkpoints / "4.json").unlink()
    assert script.start(12) == plain(12, (4, 9))
    assert segments(script.run)[-1] == ("rollback", 2, "k1")


def test_an_order_without_a_checkpoint_for_it_is_refused_and_nothing_is_discarded(tmp_path: Path) -> None:
    script = Script(tmp_path, {7: [spike(to=1)]})
    assert script.start(9) == plain(9)
    assert refusals(script.run) == [("there is no checkpoint at or before step 1", None)]


def test_an_order_whose_checkpoint_is_gone_at_the_restart_is_refused_and_the_newest_one_is_loaded(
    tmp_path: Path,
) -> None:
    script = left_for_an_order(tmp_path)
    for step in (2, 4):
        (script.checkpoints / f"{step}.json").unlink()
    assert script.start(12) == plain(12)
    assert script.on_disk() == [6, 8, 10, 12]
    assert refusals(script.run) == [("there is no checkpoint at or before step 4", None)]


def test_an_order_that_cannot_be_kept_is_refused_and_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: RestartState, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RestartState, "save", full)
    script = Script(tmp_path, {7: [spike()]})
    assert script.start(12) == plain(12)
    (answer,) = [line for line in records(script.run) if "answer" in line]
    assert answer["state"] == "failed"
    assert "cannot be kept for the restart" in answer["detail"]


def test_the_learning_rate_and_the_remedies_of_an_order_are_in_effect_after_the_restart(tmp_path: Path) -> None:
    order = spike(lr_scale=0.5, remedies=("z_loss", "other"))
    script = Script(tmp_path, {7: [order]}, remedies={"z_loss": 3})
    assert script.run_to_end(8) == plain(8, (4, 9))
    assert script.plan.lr_scale == 0.5
    assert [script.plan.has_remedy("z_loss", step) for step in (4, 6, 7)] == [True, True, False]
    assert script.start(9) == plain(9, (4, 9))
    assert (script.plan.lr_scale, script.plan.has_remedy("z_loss", 6)) == (0.5, True)
    (line,) = [line for line in records(script.run) if line.get("key") == "k1"]
    assert line["applied"]["remedies"] == {"z_loss": 7}
    assert line["applied"]["detail"] == "the script has not registered 'other'"
    capabilities = [line["run"]["capabilities"] for line in records(script.run) if "run" in line][-1]
    assert set(capabilities) == {"rollback", "remedy:z_loss"}


@pytest.mark.parametrize("remedies", [{"Z-loss": 3}, {"z_loss": 0}, {"z_loss": 2.5}])
def test_an_invalid_remedy_is_refused(remedies: Any) -> None:
    with pytest.raises(ValueError, match="must map names"):
        lossguard.restart(lossguard.Run(id="r"), remedies=remedies)


def test_a_held_run_waits_at_the_boundary_until_it_is_released(tmp_path: Path) -> None:
    hold, release = new_order(OrderKind.HOLD, 1), new_order(OrderKind.RELEASE, 2)
    script = Script(tmp_path, {5: [hold, release]})
    assert script.start(7) == plain(7)
    assert [line["key"] for line in records(script.run) if "answer" in line] == ["k1", "k2"]


def test_a_rollback_ends_a_hold(tmp_path: Path) -> None:
    script = Script(tmp_path, {7: [new_order(OrderKind.HOLD, 2), spike()]})
    assert script.run_to_end(12) == plain(12, (4, 9))
    assert segments(script.run)[-1] == ("rollback", 4, "k1")


def test_checking_before_the_new_segment_has_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"call plan.resumed\(step\) before plan.check\(\)"):
        lossguard.restart(lossguard.Run(id="r")).check()


def test_a_run_that_records_nothing_has_an_empty_plan() -> None:
    plan = lossguard.restart(lossguard.init("p", mode="off"))
    assert (plan.newest([2, 4]), plan.discarded([2, 4]), plan.lr_scale, plan.next_free(3)) == (4, [], 1.0, 3)
    plan.resumed(4)
    plan.check()
    plan.close()


def test_an_order_beyond_the_limits_does_not_end_the_process(tmp_path: Path) -> None:
    script = Script(tmp_path, {7: [spike()]}, limits=Limits(max_depth=2))
    assert script.start(12) == plain(12)
    assert refusals(script.run) == [("it discards 3 steps, from 4 to 7, and max_depth=2", "limits")]


def test_rollbacks_of_a_day_are_counted_over_restarts(tmp_path: Path) -> None:
    script = Script(tmp_path, {7: [spike()]}, limits=Limits(rollbacks_per_day=1))
    script.run_to_end(12)
    script.orders[13] = [spike(id=2, to=12, skip=(20, 21))]
    assert script.run_to_end(16) == plain(16, (4, 9))
    assert refusals(script.run) == [("1 rollback within 24 hours, and rollbacks_per_day=1", "limits")]


def test_a_checkpoint_that_has_gone_since_does_not_take_a_run_further_back_than_its_limits(tmp_path: Path) -> None:
    script = Script(tmp_path, {7: [spike()]}, limits=Limits(max_depth=4))
    script.removes_discarded = False
    with pytest.raises(SystemExit):
        script.start(12)
    (script.checkpoints / "4.json").unlink()
    script.run_to_end(12)
    assert refusals(script.run) == [
        ("max_depth permits no step before 3, and the newest checkpoint is of step 2", "limits")
    ]


def test_a_kill_file_that_came_before_the_restart_stops_the_order_that_was_kept(tmp_path: Path) -> None:
    script = left_for_an_order(tmp_path)
    kill_file = script.run.directory / "no-orders"
    kill_file.touch()
    assert script.start(12) == plain(12)
    assert script.loaded == [None, 6]
    assert refusals(script.run) == [(f"the trainer carries out no orders: {kill_file} exists", "observes")]


HAPPENS: dict[str, Callable[[Script], None]] = {
    "the lease of the run ran out meanwhile": lambda script: script.run.inbox.receive([spike()], time.monotonic()),
    "the collector has withdrawn it meanwhile": lambda script: script.run.inbox.receive([]),
    "the trainer carries out no orders": lambda script: (script.run.directory / "no-orders").touch(),
}


@pytest.mark.parametrize("why", HAPPENS)
def test_an_order_that_does_not_count_any_more_when_the_checkpoint_is_loaded_is_not_executed(
    tmp_path: Path, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = left_for_an_order(tmp_path)
    script.orders = {}
    script.on["loaded"] = lambda: HAPPENS[why](script)
    assert script.start(12) == plain(12), "no batch is skipped"
    assert segments(script.run) == [("start", 0, None), ("resume", 4, None)]
    assert [detail for detail, _ in refusals(script.run)] == [
        f"the trainer carries out no orders: {script.run.directory}/no-orders exists"
    ] * ("no orders" in why)
    assert why in caplog.text


def test_a_script_that_logs_seldom_stands_at_its_newest_checkpoint_at_least(tmp_path: Path) -> None:
    deep, shallow = spike(to=4, skip=(20, 21)), spike(id=2, to=8, skip=(20, 21))
    script = Script(tmp_path, {10: [deep, shallow]}, limits=Limits(max_depth=5))
    script.log_every = 7  # 0 and 7: the checkpoints say that the run has reached step 10
    assert script.run_to_end(12) == plain(12, (20, 21))
    assert refusals(script.run) == [("it discards 6 steps, from 4 to 10, and max_depth=5", "limits")]
    assert script.loaded == [None, 8]
    assert segments(script.run) == [("start", 0, None), ("rollback", 8, "k2")]


def test_the_ranks_do_not_wait_for_each_other_where_one_sees_a_checkpoint_that_was_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that looks at the disk before the others, or has no such folder, must not be waited for."""
    with offline(tmp_path, run_id="r") as run:
        assert run.directory is not None
        RestartState(discarded=frozenset((5,))).save(run.directory)
        plan = lossguard.restart(run)
        plan.newest([])
        plan.resumed(0)
        monkeypatch.setattr(plan.ranks, "broadcast", None)
        plan.saved([5])
        assert RestartState.read(run.directory, run.history).discarded == frozenset()
        assert records(run)[-1]["restorable"] == [5]
