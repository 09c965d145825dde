"""Remedies that an order switches on: how long they are in effect, after restarts and rewinds too."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lossguard
from lossguard import Guard, Run
from lossguard.guard.remedies import Remedies, ScaledRates
from lossguard.run.ranks import Ranks
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import CAN_SCALE_LR, remedies_in
from lossguard.vocabulary.states import SegmentReason
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.recorded import offline, records
from tests.lossguard.scripted import Indices, Memory, ScriptedRun, rollback
from tests.waiting import eventually


class Noting(ScriptedRun):
    """Notes events, too."""

    def declare(self, /, kind: str, **details: Any) -> None:
        self.recorded.append((kind, details))


class Loop:
    """A loop whose weight is 1, and 10 while the remedy `weight` is applied."""

    def __init__(self, run: Run, checkpoints: Any = None, *, lasts: int = 3) -> None:
        self.weight, self.calls = 1, ""
        self.guard = Guard(run, checkpoints=checkpoints or Memory([]), every=2)
        self.guard.remedy("weight", self.apply, self.revert, lasts=lasts)

    def apply(self) -> None:
        self.weight, self.calls = 10, self.calls + "+"

    def revert(self) -> None:
        self.weight, self.calls = 1, self.calls + "-"

    def run(self, until: int) -> list[tuple[int, int]]:
        """(step, weight) of each step."""
        seen = []
        for step, _ in self.guard.steps(Indices(), until):
            self.guard.run.log(step, loss=1.0)
            seen.append((step, self.weight))
        return seen


def ordered(rewind_to: int, *names: str, **fields: Any) -> Order:
    return rollback(rewind_to=rewind_to, remedies=names or ("weight",), **fields)


def test_a_remedy_is_in_effect_from_the_restored_step_until_its_end(caplog: pytest.LogCaptureFixture) -> None:
    run = Noting({5: ordered(2, reason="spike")})
    loop = Loop(run)
    assert loop.run(8)[4:] == [(2, 10), (3, 10), (4, 10), (5, 1), (6, 1), (7, 1)]
    assert run.recorded[1:] == [
        ("rollback", 2, 1, {"rewound_to": 2, "reason": "spike", "remedies": {"weight": 5}}),
        ("remedy", {"name": "weight", "state": "ended"}),
    ]
    assert loop.calls == "+-"
    assert caplog.messages == ["rolled back 4 -> 2, with weight: spike"]


def test_a_run_says_that_it_scales_its_learning_rate_once_its_loop_has_read_the_factor(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        guard = Guard(run, checkpoints=Memory([]))
        assert CAN_SCALE_LR not in _announced(run)[-1]
        assert [guard.lr_scale for _ in range(3)] == [1.0] * 3
    assert [CAN_SCALE_LR in each for each in _announced(run)].count(True) == 1
    with offline(tmp_path) as run:
        assert lossguard.restart(run).lr_scale == 1.0
    assert CAN_SCALE_LR in _announced(run)[-1]


def _announced(run: Run) -> list[list[str]]:
    return [record["run"]["capabilities"] for record in records(run) if "run" in record]


def test_a_remedy_in_effect_is_prolonged_and_not_applied_twice() -> None:
    loop = Loop(ScriptedRun({5: ordered(2), 8: ordered(2)}), lasts=4)
    assert loop.run(8)[4:] == [(2, 10), (3, 10), (2, 10), (3, 10), (4, 10), (5, 10), (6, 1), (7, 1)]
    loop = Loop(ScriptedRun({5: ordered(2), 9: ordered(4)}), lasts=4)
    assert loop.run(9)[-2:] == [(7, 10), (8, 1)]
    assert loop.calls == "+-"


def test_a_remedy_survives_a_rollback_that_does_not_name_it_and_one_to_before_its_end_brings_it_back() -> None:
    orders = {5: ordered(2), 8: rollback(2, rewind_to=0), 15: rollback(3, rewind_to=4)}
    loop = Loop(ScriptedRun(orders))
    weights = loop.run(7)
    assert weights[4:12] == [(2, 10), (3, 10), (0, 10), (1, 10), (2, 10), (3, 10), (4, 10), (5, 1)]
    assert weights[12:] == [(4, 10), (5, 1), (6, 1)]
    assert loop.calls == "+-+-"


def test_a_remedy_that_has_just_ended_is_reverted_before_a_rollback_brings_it_back() -> None:
    """One that changes what a restore brings, as `moments` does, would otherwise miss the state that is restored."""
    loop = Loop(ScriptedRun({5: ordered(2), 7: rollback(2, rewind_to=0)}), lasts=1)
    assert loop.run(5)[4:] == [(2, 10), (0, 10), (1, 10), (2, 10), (3, 1), (4, 1)]
    assert loop.calls == "+-+-"


def test_a_restart_applies_what_is_in_effect_at_its_step_and_nothing_else() -> None:
    checkpoints = Memory([])
    first = iter(Loop(ScriptedRun({5: ordered(2)}), checkpoints).guard.steps(Indices(), 20))
    assert [next(first)[0] for _ in range(7)][-1] == 4
    del first  # as if the process had died: the checkpoint of step 4 holds the end, 5
    again = Loop(ScriptedRun(), checkpoints)
    assert again.run(7) == [(4, 10), (5, 1), (6, 1)]
    last = Loop(ScriptedRun(), checkpoints)
    assert (last.run(9), last.calls) == ([(7, 1), (8, 1)], "")


def test_a_resumed_process_knows_from_its_spool_what_is_in_effect(tmp_path: Path) -> None:
    """Also where the checkpoint that it restores is older than the order."""
    checkpoints, order = Memory([]), ordered(0)
    with offline(tmp_path, run_id="r") as run:
        loop = Loop(run, checkpoints, lasts=6)
        seen = []
        for step, _ in loop.guard.steps(Indices(), 2):
            seen.append((step, loop.weight))
            run.inbox.receive([order])  # type: ignore[attr-defined]
        assert seen == [(0, 1), (0, 10), (1, 10)]
    checkpoints.saved = {0: (checkpoints.saved[0][0], checkpoints.saved[0][1] | {"remedies": {}})}
    (segment,) = [record for record in records(run) if record.get("order") == 1]
    assert segment["applied"]["remedies"] == {"weight": 6}
    with offline(tmp_path, run_id="r") as run:
        assert Loop(run, checkpoints, lasts=6).run(8)[5:] == [(5, 10), (6, 1), (7, 1)]
    (event,) = [record for record in records(run) if record.get("event") == "remedy"]
    assert (event["step"], event["details"]) == (6, {"name": "weight", "state": "ended"})


def test_the_collector_learns_which_remedies_a_run_has(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        Loop(run)
    capabilities = [record["run"]["capabilities"] for record in records(run) if "run" in record][-1]
    assert capabilities == ["rollback", "preflight", "remedy:weight"]
    assert remedies_in(capabilities) == ("weight",)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("broken",), "the remedy 'broken' could not be applied: no such group"),
        (("unknown",), "the remedy 'unknown' could not be applied: this loop has not registered it"),
    ],
)
def test_a_remedy_that_cannot_be_applied_is_reported_and_the_rollback_is_carried_out(
    names: tuple[str, ...], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("no such group")

    run = ScriptedRun({5: ordered(2, *names, "weight"), 7: rollback(2, rewind_to=2)})
    loop = Loop(run)
    loop.guard.remedy("broken", fail, fail)
    assert loop.run(4)[-2:] == [(2, 10), (3, 10)]
    assert run.recorded[1][3] == {"rewound_to": 2, "reason": "", "remedies": {"weight": 5}, "detail": why}
    assert caplog.messages.count(f"{why}; training continues without it") == 1
    assert [each for each in caplog.messages if each.startswith("rolled back 4")] == ["rolled back 4 -> 2, with weight"]


def test_a_remedy_that_cannot_be_applied_after_a_restart_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    run = ScriptedRun()
    run.history.remedies = {"gone": 100}
    assert len(Loop(run).run(5)) == 5
    assert len(caplog.messages) == 1
    assert "the remedy 'gone' could not be applied: this loop has not registered it" in caplog.text


def test_a_remedy_that_cannot_be_reverted_is_reported_and_training_continues(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError("oh")

    guard = Guard(ScriptedRun({3: ordered(0, "odd")}), checkpoints=Memory([]), every=2)
    guard.remedy("odd", lambda: None, fail, lasts=1)
    assert len(list(guard.steps(Indices(), 5))) == 7
    assert caplog.messages[1:] == ["the remedy 'odd' could not be reverted: ZeroDivisionError: oh"]


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("weight", {}, "the remedy 'weight' is registered twice"),
        ("Z-loss", {}, "the name of a remedy has 1 to 64 characters of a-z, 0-9 and _, not 'Z-loss'"),
        ("", {}, "not ''"),
        ("new", {"lasts": 0}, "lasts=0 of the remedy 'new' must be a number of steps"),
        ("new", {"lasts": 1.5}, "lasts=1.5"),
        ("new", {"apply": None}, "apply=None of the remedy 'new' must be a function"),
    ],
)
def test_a_registration_that_cannot_be_meant_is_refused(name: str, changes: dict[str, Any], why: str) -> None:
    loop = Loop(ScriptedRun())
    arguments: dict[str, Any] = {"apply": loop.apply, "revert": loop.revert, "lasts": 5} | changes
    with pytest.raises(ValueError, match=why):
        loop.guard.remedy(name, **arguments)


def test_a_remedy_of_a_segment_is_part_of_the_history(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.open_segment(0, SegmentReason.START)
        for end in (700, 900):
            applied = {"rewound_to": 50, "remedies": {"clip": end}}
            run.open_segment(50, SegmentReason.ROLLBACK, rollback(end), applied)
    with offline(tmp_path, run_id="r") as run:
        assert run.history.remedies == {"clip": 900}


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12), st.integers(1, 9))
def test_a_remedy_is_applied_exactly_at_the_steps_below_its_end_whatever_came_before(
    jumps: list[tuple[int, bool]], lasts: int
) -> None:
    state: list[bool] = []
    remedies = Remedies(Run(id="r"), Ranks(), LogOnce())
    remedies.register("r", lambda: state.append(True), lambda: state.append(False), lasts)
    end = 0
    for step, is_ordered in jumps:
        if is_ordered:
            remedies.start(["r"], step)
            end = max(end, step + lasts)
        remedies.update(step)
        assert (state[-1:] == [True]) is (step < end)
    assert all(before is not after for before, after in pairwise(state))


@pytest.mark.slow
def test_an_order_of_a_collector_switches_a_remedy_on_and_the_answer_names_the_one_that_failed(
    collector: FakeCollector, tmp_path: Path
) -> None:
    with lossguard.init("project", run_id="r", url=collector.url, directory=tmp_path) as run:
        loop = Loop(run)
        weights = []
        for step, _ in loop.guard.steps(Indices(), 8):
            run.log(step, loss=1.0)
            weights.append(loop.weight)
            if step == 5 and not collector.orders and not collector.answers:
                collector.order(id=3, kind="rollback", rewind_to=2, remedies=["weight", "unknown"])
                run.log(6, loss=9.0)
                assert eventually(lambda: bool(run.inbox.orders))  # type: ignore[attr-defined]
    assert weights == [*[1] * 6, *[10] * 3, *[1] * 3]
    assert collector.runs["r"]["capabilities"] == ["rollback", "preflight", "remedy:weight"]
    why = "the remedy 'unknown' could not be applied: this loop has not registered it"
    assert collector.answers == {3: {"state": "applied", "key": "k3", "rewound_to": 2, "detail": why}}


def test_the_rates_are_scaled_for_one_step_and_then_what_they_were_to_the_last_digit() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.3)]
    optimizer, rates = torch.optim.SGD(groups), ScaledRates()
    for factor, expected in ((0.7, [0.1 * 0.7, 0.3 * 0.7]), (1.0, [0.1, 0.3])):
        rates.scale(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == expected
        rates.undo(optimizer)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
