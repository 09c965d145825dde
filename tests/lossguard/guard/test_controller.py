import signal
from collections.abc import Callable
from typing import Any

import pytest

from lossguard import Order, OrderKind, Skip
from lossguard.guard.controller import Boundary, Controller
from tests.lossguard.scripted import Memory, ScriptedRun, new_order, rollback


def controller_of(run: ScriptedRun, checkpoints: Memory, **options: Any) -> Controller:
    return Controller(run, checkpoints=checkpoints, every=2, **options)


def drive(controller: Controller, checkpoints: Memory, until: int) -> list[Boundary]:
    """A loop that a framework could own."""
    at = controller.open(until=until)
    seen = [at]
    while not at.stop and at.step < until:
        checkpoints.model.append(at.batch)
        at = controller.boundary()
        seen.append(at)
    controller.close()
    return seen


def test_each_boundary_names_the_next_step_and_its_batch() -> None:
    run, checkpoints = ScriptedRun(), Memory([])
    seen = drive(controller_of(run, checkpoints), checkpoints, 5)
    assert seen == [Boundary(step, step, restored=False, stop=False, since=step) for step in range(6)]
    assert checkpoints.steps() == [0, 2, 4, 5]
    assert run.batch_index is None


def test_a_boundary_says_that_the_state_was_restored() -> None:
    run, checkpoints = ScriptedRun({4: rollback(rewind_to=2, skip_from=2, skip_to=9)}), Memory([])
    seen = drive(controller_of(run, checkpoints), checkpoints, 4)
    assert [(at.step, at.batch) for at in seen if at.restored] == [(2, 9)]
    assert checkpoints.model == [0, 1, 9, 10]


def test_an_order_at_the_last_boundary_takes_the_run_back() -> None:
    run, checkpoints = ScriptedRun({4: rollback(rewind_to=0, skip_from=0, skip_to=10)}), Memory([])
    drive(controller_of(run, checkpoints), checkpoints, 3)
    assert checkpoints.model == [10, 11, 12]


def test_skips_that_are_given_are_skipped_from_the_start_and_kept_in_checkpoints() -> None:
    checkpoints = Memory([])
    controller = controller_of(ScriptedRun(), checkpoints, skips=[Skip(1, 3), (5, 6)])
    assert [at.batch for at in drive(controller, checkpoints, 4)][:4] == [0, 3, 4, 6]
    again = controller_of(ScriptedRun(), checkpoints)
    assert again.open(until=9).batch == 7
    assert again.ledger.skips == [Skip(1, 3), Skip(5, 6)]
    again.abandon()


def test_a_run_that_began_without_a_checkpoint_starts_where_the_loop_stands() -> None:
    controller = controller_of(ScriptedRun(), Memory([]))
    assert controller.open(until=20, step=8, batch=11) == Boundary(8, 11, restored=False, stop=False, since=11)
    assert controller.boundary() == Boundary(9, 12, restored=False, stop=False, since=12)
    controller.abandon()


def test_a_last_step_without_a_boundary_is_saved_by_close() -> None:
    checkpoints = Memory([])
    controller = controller_of(ScriptedRun(), checkpoints)
    controller.open(until=1)
    controller.close(step_done=True)
    assert checkpoints.steps() == [0, 1]


def test_the_collector_learns_that_saves_fail_and_when_they_work_again() -> None:
    run, checkpoints = ScriptedRun({11: new_order(OrderKind.ROLLBACK, 1, rewind_to=0)}), Memory([])
    controller = controller_of(run, checkpoints)
    controller.open(until=20)
    checkpoints.full = True
    for _ in range(5):
        controller.boundary()
    assert run.unsaved == ["[Errno 28] No space left on device"]
    checkpoints.full = False
    controller.boundary()
    assert run.unsaved[1:] == [""]
    checkpoints.full = True
    for _ in range(4):
        controller.boundary()  # the last one rolls back to step 0
    checkpoints.full = False
    for _ in range(2):
        controller.boundary()
    assert [bool(each) for each in run.unsaved] == [True, False, True, False]
    controller.abandon()


class Away(Memory):
    """A disk of the network that answers nothing while it is `full`."""

    def steps(self) -> list[int]:
        if self.full:
            raise OSError(116, "Stale file handle")
        return super().steps()

    def save(self, step: int, state: dict[str, Any]) -> None:
        self.steps()
        super().save(step, state)


def test_a_run_trains_on_while_its_checkpoints_cannot_even_be_listed() -> None:
    run, checkpoints = ScriptedRun(), Away([])
    controller = controller_of(run, checkpoints)
    controller.open(until=20)
    checkpoints.full = True
    for _ in range(5):
        controller.boundary()
    assert (run.unsaved, run.restorable) == (["[Errno 116] Stale file handle"], [0])
    checkpoints.full = False
    controller.boundary()
    assert (run.unsaved[1:], run.restorable) == ([""], [0, 6])
    controller.abandon()


def test_a_run_is_stopped_and_says_what_it_resumes_from_while_its_checkpoints_cannot_be_listed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints = Away([])
    controller = controller_of(ScriptedRun(), checkpoints)
    controller.open(until=20)
    checkpoints.full = True
    signal.raise_signal(signal.SIGTERM)
    assert controller.boundary().stop
    controller.close()
    assert caplog.messages[-1].endswith("with the same command resumes it from step 0")


def test_a_guard_that_gives_up_says_so_and_ends_a_hold_up_to_the_next_loop() -> None:
    run = ScriptedRun({1: new_order(OrderKind.HOLD, 1)})
    controller = controller_of(run, Memory([]))
    run.fails_at = 3  # while the run is held
    with pytest.raises(RuntimeError, match="the inbox has gone"):
        controller.open(until=9)
    controller.give_up(RuntimeError("the inbox has gone"))
    assert run.unguarded == "the guard has failed (RuntimeError: the inbox has gone)"
    assert run.recorded == [("start", 0, None, None), ("accepted", 1), ("resume", 0, None, None)]
    controller.open(until=9)
    assert run.unguarded == ""
    controller.abandon()


def test_an_abandoned_loop_saves_nothing_and_gives_the_signal_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run, checkpoints = ScriptedRun(), Memory([])
    controller = controller_of(run, checkpoints)
    controller.open(until=9)
    assert signal.getsignal(signal.SIGTERM) != before
    controller.boundary()
    controller.abandon()
    assert signal.getsignal(signal.SIGTERM) == before
    assert (checkpoints.steps(), run.batch_index) == ([0], None)


def test_a_resume_that_fails_leaves_the_signal_handlers_as_they_were() -> None:
    class Broken(Memory):
        def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
            raise OSError("the disk has gone")

    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Broken([])
    checkpoints.save(0, {})
    with pytest.raises(OSError, match="disk"):
        controller_of(ScriptedRun(), checkpoints).open(until=3)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_state_of_the_data_is_saved_and_restored_with_the_run() -> None:
    class Data:
        def __init__(self) -> None:
            self.seen = 0

        def state_dict(self) -> dict[str, int]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.seen = state["seen"]

    data, checkpoints = Data(), Memory([])
    run = ScriptedRun({4: rollback(rewind_to=2, skip_from=2, skip_to=4)})
    controller = controller_of(run, checkpoints)
    at = controller.open(until=9, data=data)
    for seen in (1, 2, 3):
        data.seen = seen
        at = controller.boundary()
    assert (at, data.seen) == (Boundary(2, 4, restored=True, stop=False, since=2), 2)
    controller.abandon()
    fresh = Data()
    again = controller_of(ScriptedRun(), checkpoints)
    again.open(until=9, data=fresh)
    assert fresh.seen == 2
    again.abandon()


def test_checkpoints_of_a_run_whose_data_had_no_state_are_restored() -> None:
    checkpoints = Memory([])
    drive(controller_of(ScriptedRun(), checkpoints), checkpoints, 2)
    again = controller_of(ScriptedRun(), checkpoints)
    assert again.open(until=9, data=object()).step == 2  # nothing is loaded into it
    again.abandon()


def test_a_loop_that_a_signal_ends_says_how_to_resume_the_run(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Memory([])
    controller = controller_of(ScriptedRun(), checkpoints)
    controller.open(until=3)
    signal.raise_signal(signal.SIGTERM)
    assert controller.boundary().stop
    controller.close()
    assert caplog.messages[-1] == (
        "SIGTERM: the run stopped before step 1; LOSSGUARD_RUN_ID=r with the same command resumes it from step 1"
    )
    checkpoints.saved, checkpoints.full = {}, True
    controller.open(until=3)
    signal.raise_signal(signal.SIGINT)
    controller.boundary()
    controller.close()
    assert caplog.messages[-1] == "SIGINT: the run stopped before step 1; no checkpoint is saved"
    caplog.clear()
    controller.open(until=1)
    signal.raise_signal(signal.SIGINT)
    controller.boundary()
    controller.close()
    assert "the run stopped" not in caplog.text, "its last step was done"


def test_a_signal_stops_one_loop_and_not_the_next_one_in_the_same_process() -> None:
    run, checkpoints = ScriptedRun(), Memory([])
    controller = controller_of(run, checkpoints)
    controller.open(until=9)
    signal.raise_signal(signal.SIGINT)
    assert controller.boundary().stop
    controller.close()
    assert (run.interrupted, controller.interrupted_by) == (True, signal.SIGINT)
    assert [at.step for at in drive(controller, checkpoints, 4)] == [1, 2, 3, 4]
    assert (run.interrupted, controller.interrupted_by) == (False, None)


class Stalled(Memory):
    """Checkpoints whose load takes so long that something happens to the order meanwhile."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__([])
        self.happens = happens

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        self.happens()
        return super().load(step, not_before=not_before)


class Leased(ScriptedRun):
    """A run that can lose its lease."""

    lost: str | None = None

    def revoked(self, order: Order) -> str | None:
        return self.lost

    def give_back(self, order: Order) -> None:
        self.recorded.append(("given back", order.id))


def test_a_rollback_during_which_the_lease_ran_out_is_not_carried_out_and_the_newest_state_comes_back() -> None:
    run = Leased({6: rollback(rewind_to=2, skip_from=2, skip_to=9)})
    checkpoints = Stalled(lambda: setattr(run, "lost", "the lease of the run ran out meanwhile"))
    controller = controller_of(run, checkpoints)
    drive(controller, checkpoints, 6)
    assert checkpoints.steps() == [0, 2, 4, 6], "no checkpoint is discarded"
    assert (checkpoints.model, controller.ledger.skips) == ([0, 1, 2, 3, 4, 5], [])
    assert run.recorded == [("start", 0, None, None), ("given back", 1), ("rewind", 4, None, None)]


@pytest.mark.parametrize("kind", ["rollback", "hold"])
def test_an_order_that_was_forbidden_while_it_was_carried_out_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = rollback(rewind_to=2) if kind == "rollback" else new_order(OrderKind.HOLD, 1)
    run = ScriptedRun({5: order})
    checkpoints = Stalled(lambda: controller.observe())
    controller = controller_of(run, checkpoints)
    if kind == "hold":
        monkeypatch.setattr(checkpoints, "settle", lambda wait=False: controller.observe())
    drive(controller, checkpoints, 6)
    assert ("refused", 1, "the trainer carries out no orders: guard.observe() was called") in run.recorded
    assert not [each for each in run.recorded if each[0] in ("rollback", "accepted")]
    assert checkpoints.model == [0, 1, 2, 3, 4, 5]
