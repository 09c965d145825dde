import fcntl
import io
import json
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tqdm import tqdm

import lossguard
from lossguard import Guard, Limits, Order, OrderKind, Run, Skip
from lossguard.torch import Checkpoints
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, ConfigurationError
from tests.lossguard.checkpoints.box import Box
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.recorded import offline, records, steps
from tests.lossguard.scripted import Indices, Memory, ScriptedRun, new_order, rollback
from tests.waiting import eventually, pause


def train(run: Run, checkpoints: Memory, until: int = 10, batches: Any = None, **options: Any) -> list[tuple[int, int]]:
    guard = Guard(run, checkpoints=checkpoints, every=2, **options)
    seen = []
    for step, batch in guard.steps(batches or Indices(), until):
        assert run.batch_index == batch or batches is not None
        checkpoints.model.append(batch)
        seen.append((step, batch))
    return seen


def test_the_step_after_a_save_reports_how_long_the_save_held_the_loop_up(tmp_path: Path) -> None:
    class Slow(Memory):
        def save(self, step: int, state: dict[str, Any]) -> None:
            pause(0.01)
            super().save(step, state)

    with offline(tmp_path) as run:
        for step, _ in Guard(run, checkpoints=Slow([]), every=2).steps(Indices(), 5):
            run.log(step, loss=1.0)
    saves = {step: metrics["checkpoint_seconds"] for step, metrics in steps(run) if "checkpoint_seconds" in metrics}
    assert saves.keys() == {0, 2, 4}
    assert all(seconds >= 0.01 for seconds in saves.values())


def test_the_line_at_the_start_says_where_the_run_is_reported_and_how_much_disk_its_checkpoints_take(
    tmp_path: Path,
) -> None:
    model = nn.Linear(128, 256)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3, model=model, optimizer=optimizer)
    said: list[str] = []
    with offline(tmp_path / "runs", run_id="r") as run:
        guard = Guard(run, checkpoints=checkpoints, every=2)
        guard.tell = said.append
        for step, _ in guard.steps(Indices(), 41):
            model(torch.ones(128)).sum().backward()
            optimizer.step()
            run.log(step, loss=1.0)
    [sentence] = said
    start = "watching run r, recorded on disk only: no rollback; a checkpoint every 2 steps, "
    assert sentence.startswith(start)
    num, about, unit = sentence.removeprefix(start).replace("kept (~", "").rstrip(")").split()
    taken = sum(file.stat().st_size for file in checkpoints.directory.glob("step-*/*"))
    assert (int(num), unit) == (len(checkpoints.steps()), "MiB")
    assert float(about) * 2**20 == pytest.approx(taken, rel=0.2)
    assert [record["run"]["total_steps"] for record in records(run) if "run" in record][-1] == 41


def test_without_orders_step_and_batch_go_together() -> None:
    run, checkpoints = ScriptedRun(), Memory([])
    assert train(run, checkpoints, 5) == [(step, step) for step in range(5)]
    assert checkpoints.steps() == run.restorable == [0, 2, 4, 5]
    assert run.recorded == [("start", 0, None, None)]
    assert run.announced == ["a checkpoint every 2 steps"]


def test_a_rollback_restores_skips_and_continues_at_the_restored_step(caplog: pytest.LogCaptureFixture) -> None:
    run = ScriptedRun({8: rollback(rewind_to=5, skip_from=5, skip_to=9, reason="spike")})
    checkpoints = Memory([])
    seen = train(run, checkpoints, 9)
    assert seen == [*((n, n) for n in range(7)), (4, 4), (5, 9), (6, 10), (7, 11), (8, 12)]
    assert checkpoints.model == [0, 1, 2, 3, 4, 9, 10, 11, 12]
    applied = {"rewound_to": 4, "skip_from": 5, "skip_to": 9, "reason": "spike", "compared": False}
    assert run.recorded[1] == ("rollback", 4, 1, applied)
    assert caplog.messages == ["rolled back 7 -> 4, skipping 4 batches (5-8): spike"]


def test_a_progress_bar_that_is_set_as_the_docs_say_goes_back_and_ends_at_its_end() -> None:
    shown = []
    bar = tqdm(total=8, file=io.StringIO())
    run = ScriptedRun({8: rollback(rewind_to=5, skip_from=5, skip_to=9)})
    for step, _ in Guard(run, checkpoints=Memory([]), every=2).steps(Indices(), 8):
        bar.update(step + 1 - bar.n)
        shown.append(bar.n)
    bar.close()
    assert shown == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8]


def test_later_passes_over_a_sequence_skip_the_same_batches_unless_they_are_skipped_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def batches(**options: Any) -> list[int]:
        run = ScriptedRun({7: rollback(rewind_to=2, skip_from=3, skip_to=5)})
        return [batch for _, batch in train(run, Memory([]), 18, batches=list(range(8)), **options)][6:]

    assert batches() == [2, 5, 6, 7, 0, 1, 2, 5, 6, 7, 0, 1, 2, 5, 6, 7]
    assert caplog.messages[0].endswith(", skipping 2 batches (3-4) in each pass")
    assert batches(skip_samples="once") == [2, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def test_the_checkpoints_of_a_discarded_branch_are_gone_before_the_rollback_is_recorded() -> None:
    checkpoints = Memory([])

    class Watching(ScriptedRun):
        def open_segment(self, *arguments: Any) -> None:
            super().open_segment(*arguments)
            if arguments[1] == "rollback":
                assert checkpoints.steps() == [0, 2]

    run = Watching({8: rollback(rewind_to=2, skip_from=2, skip_to=4)})
    train(run, checkpoints, 8)
    assert len(run.recorded) == 2


def test_a_rollback_with_a_one_shot_iterator_continues_with_new_batches() -> None:
    run = ScriptedRun({5: rollback(rewind_to=2, skip_from=3, skip_to=6)})
    seen = train(run, Memory([]), 6, batches=iter(range(100)))
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3), (2, 6), (3, 7), (4, 8), (5, 9)]


def test_an_order_that_cannot_be_executed_is_refused_and_training_continues() -> None:
    checkpoints = Memory([])
    run = ScriptedRun({3: rollback(1), 4: rollback(2, rewind_to=-1)})
    assert len(train(run, checkpoints, 5)) == 5
    assert [answer[:2] for answer in run.recorded[1:]] == [("refused", 1), ("refused", 2)]


def test_an_order_may_lower_the_learning_rate_and_a_restart_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Memory([])
    run = ScriptedRun({4: rollback(rewind_to=2, lr_scale=0.5)})
    guard = Guard(run, checkpoints=checkpoints, every=2)
    assert [guard.lr_scale for _ in guard.steps(Indices(), 4)] == [1.0, 1.0, 1.0, 0.5, 0.5]
    again = Guard(ScriptedRun(), checkpoints=checkpoints)
    assert [again.lr_scale for _ in again.steps(Indices(), 5)] == [0.5]
    assert caplog.messages == [
        "rolled back 3 -> 2, learning rate times 0.5 (guard.lr_scale)",
        "resumed from the checkpoint of step 4",
    ]


def test_a_run_that_is_resumed_without_its_checkpoints_says_that_it_begins_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    for _ in range(2):
        with offline(tmp_path, run_id="r") as run:
            train(run, Memory([]), 3)
        said.append([line for line in caplog.messages if "no checkpoint" in line])
    assert said == [[], ["no checkpoint of the run was found: it begins again at step 0; is the folder right?"]]


def test_a_restart_resumes_from_the_newest_checkpoint_with_its_ledger() -> None:
    checkpoints = Memory([])
    train(ScriptedRun({5: rollback(rewind_to=2, skip_from=3, skip_to=6)}), checkpoints, 6)
    checkpoints.discard_after(4)
    run = ScriptedRun()
    assert train(run, checkpoints, 8) == [(4, 7), (5, 8), (6, 9), (7, 10)]
    assert run.recorded == [("resume", 4, None, None)]
    assert checkpoints.model == [0, 1, 2, 6, 7, 8, 9, 10]


def test_a_skip_that_only_the_spool_records_holds_after_a_restart() -> None:
    run = ScriptedRun()
    run.history.skips.append(Skip(1, 3))
    assert train(run, Memory([]), 3) == [(0, 0), (1, 3), (2, 4)]


@pytest.mark.slow
def test_a_held_run_waits_until_it_is_released() -> None:
    run = ScriptedRun({2: new_order(OrderKind.HOLD, 1), 50: new_order(OrderKind.RELEASE, 2)})
    checkpoints = Memory([])
    guard = Guard(run, checkpoints=checkpoints, every=100)
    for step, _ in guard.steps(Indices(), 2):
        if step == 1:
            assert run.calls >= 50
            assert checkpoints.steps() == [0, 1]
    assert run.recorded[1:] == [("accepted", 1), ("accepted", 2)]


def test_a_held_run_reports_it_until_it_continues(caplog: pytest.LogCaptureFixture) -> None:
    held = []

    class Watching(ScriptedRun):
        def take_order(self) -> Order | None:
            held.append(guard.held)
            return super().take_order()

    run = Watching({2: new_order(OrderKind.HOLD, 1, reason="budget spent"), 5: new_order(OrderKind.RELEASE, 2)})
    guard = Guard(run, checkpoints=Memory([]), every=100)
    assert len(list(guard.steps(Indices(), 2))) == 2
    assert held == [False, False, True, True, True, False, False]
    assert "held before step 1 until it is released or rolled back: budget spent" in caplog.text


def test_a_held_run_may_be_rolled_back() -> None:
    run = ScriptedRun({4: new_order(OrderKind.HOLD, 1), 9: rollback(2, rewind_to=2, skip_from=2, skip_to=3)})
    assert train(run, Memory([]), 4) == [(0, 0), (1, 1), (2, 2), (2, 3), (3, 4)]


def test_a_failing_save_is_reported_once_and_the_run_continues(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Memory([])
    checkpoints.full = True
    run = ScriptedRun()
    assert len(train(run, checkpoints, 10)) == 10
    assert caplog.text.count("No space left on device") == 1
    assert run.restorable == []


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(train(ScriptedRun(), Memory([]), 3)))
    thread.start()
    thread.join()
    assert len(seen) == 3


def test_several_ranks_that_cannot_communicate_do_not_claim_to_roll_back(caplog: pytest.LogCaptureFixture) -> None:
    class Asked(ScriptedRun):
        claims = False

        def can_roll_back(self) -> None:
            self.claims = True

    alone, together = Asked(), Asked()
    together.num_ranks = 2
    for run in (alone, together):
        Guard(run, checkpoints=Memory([]))
    assert (alone.claims, together.claims) == (True, False)
    assert "2 ranks cannot communicate, so none rolls back" in caplog.text


def test_other_ranks_that_cannot_communicate_do_not_save() -> None:
    run, checkpoints = ScriptedRun(), Memory([])
    run.rank = 1
    train(run, checkpoints, 5)
    assert checkpoints.steps() == []


def test_checkpoints_for_a_deeper_rollback_stay_pinned_until_the_incident_is_past() -> None:
    """Rolled back from step 7 to 4: pinned up to step 10, also across a restart; then two stay for a replay."""
    run, checkpoints = ScriptedRun({8: rollback(rewind_to=5)}), Memory([])
    train(run, checkpoints, 8)
    assert checkpoints.pinned == [[], [], [], [], [0, 2, 4], [0, 2, 4]]
    train(ScriptedRun(), checkpoints, 12)
    assert checkpoints.pinned[6:] == [[2, 4], [2, 4]]


def test_only_durable_checkpoints_are_reported_as_restorable(tmp_path: Path) -> None:
    """The step after a save does not wait, and the collector learns of the checkpoint when it is on the disk."""
    durable, restorable = threading.Event(), []

    class Slow(Box):
        def state_dict(self) -> dict[str, Any]:
            return {"value": Waiting()}

    class Waiting:
        def __deepcopy__(self, memo: Any) -> Any:
            return self

        def __reduce__(self) -> Any:
            assert durable.wait(60)
            return (OrderedDict, ())

    run = ScriptedRun()
    checkpoints = Checkpoints(tmp_path, box=Slow())
    for step, _ in Guard(run, checkpoints=checkpoints, every=100).steps(Indices(), 2):
        restorable.append(run.restorable)
        durable.set()
        if step == 0:
            checkpoints._join()
    assert restorable == [[], [0]]
    assert run.restorable == [0, 2]


@pytest.mark.parametrize("harm", [{"step": 7}, {"step": -1}, {"cursor": 3}])
def test_a_checkpoint_with_an_impossible_step_or_batch_stops_the_run(harm: dict[str, int]) -> None:
    checkpoints = Memory([])
    train(ScriptedRun(), checkpoints, 4)
    checkpoints.saved[4][1].update(harm)
    with pytest.raises(CheckpointMismatch, match="the checkpoint for step 4 contains step"):
        train(ScriptedRun(), checkpoints, 8)


def test_a_restore_that_is_not_exact_is_refused_and_stops_the_run() -> None:
    class Forgetful(Memory):
        def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
            raise CheckpointMismatch("optimizer is not what the checkpoint saved")

    run = ScriptedRun({8: rollback(rewind_to=5)})
    with pytest.raises(CheckpointMismatch, match="optimizer"):
        train(run, Forgetful([]), 9)
    assert run.recorded[-1] == ("refused", 1, "optimizer is not what the checkpoint saved")


def test_an_interval_below_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="every=0"):
        Guard(ScriptedRun(), checkpoints=Memory([]), every=0)


@pytest.mark.parametrize(("rank", "expected"), [(0, ["lock", "unlock"]), (1, [])])
def test_of_ranks_that_cannot_communicate_only_the_one_that_saves_locks_the_checkpoints(
    rank: int, expected: list[str]
) -> None:
    class Locked(Memory):
        def __init__(self) -> None:
            super().__init__([])
            self.calls: list[str] = []

        def lock(self, *, wait: float) -> None:
            self.calls.append("lock")

        def unlock(self) -> None:
            self.calls.append("unlock")

    run = ScriptedRun()
    run.rank, run.num_ranks = rank, 2
    checkpoints = Locked()
    for _ in Guard(run, checkpoints=checkpoints).steps(Indices(), 3):
        assert checkpoints.calls == expected[:1], "it stays locked until the loop has ended"
    assert checkpoints.calls == expected


class Batches:
    """Batch i is a pure function of i."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(4, 8, generator=torch.Generator().manual_seed(index))


class Tiny:
    """A model with dropout, AdamW and a schedule: everything that a checkpoint must restore."""

    def __init__(self, folder: Path, **options: Any) -> None:
        torch.manual_seed(0)
        random.seed(0)
        self.model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.checkpoints = Checkpoints(folder, **options, **parts)  # type: ignore[arg-type]

    def step(self, batch: torch.Tensor) -> float:
        loss = self.model(batch + random.random()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def run(self, run: Run, until: int) -> Iterator[tuple[int, float]]:
        for step, batch in Guard(run, checkpoints=self.checkpoints, every=5).steps(Batches(), until):
            yield step, self.step(batch)


FIRST = {19: rollback(1, rewind_to=12, skip_from=11, skip_to=17)}
DEEPER = {28: rollback(2, rewind_to=9, skip_from=6, skip_to=20)}
SHALLOW = {20: rollback(rewind_to=18, skip_from=17, skip_to=20)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("orders", "options", "skips", "rewound"),
    [
        (FIRST, {}, [Skip(11, 17)], [10]),
        (FIRST | DEEPER, {}, [Skip(11, 17), Skip(6, 20)], [10, 5]),
        (SHALLOW, {"memory": 2, "memory_every": 3}, [Skip(18, 20)], [18]),
    ],
    ids=["one", "a deeper one after it", "from memory"],
)
def test_a_rolled_back_run_equals_one_that_never_saw_the_skipped_batches_bit_for_bit(
    tmp_path: Path, orders: dict[int, Order], options: dict[str, int], skips: list[Skip], rewound: list[int]
) -> None:
    run, never = ScriptedRun(dict(orders)), ScriptedRun()
    never.history.skips += skips
    assert dict(Tiny(tmp_path / "a", **options).run(run, 25)) == dict(Tiny(tmp_path / "b").run(never, 25))
    assert [each[:2] for each in run.recorded] == [("start", 0), *(("rollback", step) for step in rewound)]


def test_what_was_in_memory_is_gone_with_the_process_and_the_disk_takes_over(tmp_path: Path) -> None:
    whole = dict(Tiny(tmp_path / "a").run(ScriptedRun(), 25))
    first = Tiny(tmp_path / "b", memory=2, memory_every=3)
    steps = iter(first.run(ScriptedRun(), 25))
    parts = dict(next(steps) for _ in range(19))
    first.checkpoints.settle(wait=True)
    assert first.checkpoints.steps() == [0, 5, 10, 12, 15, 18]
    del steps  # as if the process had died
    again = Tiny(tmp_path / "b", memory=2, memory_every=3)
    assert again.checkpoints.steps() == [0, 5, 10, 15]
    assert parts | dict(again.run(ScriptedRun(), 25)) == whole


@pytest.mark.parametrize(
    ("fails", "error", "unsaved"),
    [
        ("lossguard.checkpoints.memory.MemoryCheckpoints.save", MemoryError("no more host memory"), []),
        ("lossguard.checkpoints.checkpoints.write_state", OSError("no disk"), ["no disk"]),
    ],
    ids=["too little memory", "a disk that fails in the background"],
)
def test_a_save_that_fails_does_not_end_the_run_and_the_collector_learns_of_those_on_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: str,
    error: Exception,
    unsaved: list[str],
) -> None:
    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(fails, failing)
    run = ScriptedRun()
    assert len(dict(Tiny(tmp_path, memory=1, memory_every=3).run(run, 12))) == 12
    assert (run.unsaved, str(error) in caplog.text) == (unsaved, True)


def test_checkpoints_that_a_rollback_has_discarded_and_could_not_delete_are_passed_over_or_end_the_run() -> None:
    checkpoints = Memory([])
    for step, num_rollbacks in ((0, 0), (4, 1), (6, 0), (8, 1)):
        state = {"step": step, "cursor": step, "lr_scale": 1.0, "ledger": [], "run": None, "rollbacks": num_rollbacks}
        state |= {"skips_ended": False, "remedies": {}}
        checkpoints.save(step, state | {"pinned": [], "pinned_until": 0})
    run = ScriptedRun()
    run.history.rewound_to = [2, 6]  # the second one goes back to a step of the branch that the first one opened
    assert next(Guard(run, checkpoints=checkpoints, every=50).steps(Indices(), 9))[0] == 4
    assert checkpoints.steps() == [0, 4]
    run.history.rewound_to = [-1, -1]
    with pytest.raises(CheckpointError, match=r"a rollback has discarded all checkpoints that are left \(steps 0, 4\)"):
        next(Guard(run, checkpoints=checkpoints, every=50).steps(Indices(), 9))


def resumed(folder: Path, checkpoints: Memory, until: int, **options: Any) -> tuple[list[int], list[str]]:
    """Train one process of a run up to step `until`; return its steps, and what its guard said."""
    said: list[str] = []
    with offline(folder, run_id="r") as run:
        guard = Guard(run, checkpoints=checkpoints, every=2, **options)
        guard.tell = said.append
        done = []
        for step, batch in guard.steps(Indices(), until):
            checkpoints.model.append(batch)
            run.log(step, loss=1.0)
            done.append(step)
    return done, said[:1]


def test_a_person_resumes_from_an_older_checkpoint_once_and_a_restart_with_the_same_argument_goes_on(
    tmp_path: Path,
) -> None:
    checkpoints = Memory([])
    resumed(tmp_path, checkpoints, 9)
    done, said = resumed(tmp_path, checkpoints, 7, resume_from=4)
    assert (done, said[0]) == (
        [4, 5, 6],
        "went back to the checkpoint of step 4 (resume_from); the newest one was of step 9",
    )
    assert checkpoints.steps() == [0, 2, 4, 6, 7]
    done, said = resumed(tmp_path, checkpoints, 9, resume_from=4)
    assert (done, said[0]) == (
        [7, 8],
        "resumed from the checkpoint of step 7: resume_from=4 was carried out before",
    )
    with offline(tmp_path, run_id="r") as run:
        opened = [(one["reason"], one["fork_step"], one["applied"]) for one in records(run) if "segment" in one]
        assert opened == [
            ("start", 0, None),
            ("resume", 4, {"resume_from": 4, "rewound_to": 4}),
            ("resume", 7, {"resume_from": 4}),
        ]
        assert run.history.rewound_to == [4]


def test_a_start_without_resume_from_or_with_another_step_ends_it(tmp_path: Path) -> None:
    checkpoints = Memory([])
    resumed(tmp_path, checkpoints, 6)
    assert resumed(tmp_path, checkpoints, 7, resume_from=4)[0] == [4, 5, 6]
    assert resumed(tmp_path, checkpoints, 7, resume_from=2)[0] == [2, 3, 4, 5, 6]
    assert resumed(tmp_path, checkpoints, 8)[0] == [7]
    assert resumed(tmp_path, checkpoints, 4, resume_from=2)[0] == [2, 3]


def test_a_requeued_process_in_another_run_folder_does_not_go_back_again(tmp_path: Path) -> None:
    checkpoints = Memory([])
    resumed(tmp_path / "a", checkpoints, 9)
    assert resumed(tmp_path / "b", checkpoints, 7, resume_from=4)[0] == [4, 5, 6]
    assert resumed(tmp_path / "c", checkpoints, 9, resume_from=4)[0] == [7, 8]


def test_a_second_loop_of_the_same_process_goes_on_where_the_first_one_ended() -> None:
    checkpoints = Memory([])
    train(ScriptedRun(), checkpoints, 6)
    guard = Guard(ScriptedRun(), checkpoints=checkpoints, every=2, resume_from=2)
    assert [step for step, _ in guard.steps(Indices(), 4)] == [2, 3]
    assert [step for step, _ in guard.steps(Indices(), 6)] == [4, 5]


def test_what_was_skipped_stays_skipped_when_a_person_goes_back_further(tmp_path: Path) -> None:
    checkpoints = Memory([])
    with offline(tmp_path, run_id="r") as run:
        for step, batch in Guard(run, checkpoints=checkpoints, every=2).steps(Indices(), 8):
            checkpoints.model.append(batch)
            if step == 6:
                run.inbox.receive([rollback(rewind_to=4, skip_from=4, skip_to=6)])  # type: ignore[attr-defined]
    assert checkpoints.model == [0, 1, 2, 3, 6, 7, 8, 9]
    resumed(tmp_path, checkpoints, 6, resume_from=2)
    assert checkpoints.model == [0, 1, 2, 3, 6, 7]


def test_checkpoints_that_a_person_has_left_and_that_could_not_be_deleted_are_passed_over(tmp_path: Path) -> None:
    class Undeletable(Memory):
        def discard_after(self, step: int) -> None:
            raise OSError("the network is away")

    checkpoints = Undeletable([])
    resumed(tmp_path, checkpoints, 9)
    resumed(tmp_path, checkpoints, 7, resume_from=4)
    assert checkpoints.steps() == [0, 2, 4, 6, 7, 8, 9]
    assert resumed(tmp_path, checkpoints, 8, resume_from=4)[0] == [7]


def test_an_order_that_was_decided_before_a_person_went_back_is_out_of_date(tmp_path: Path) -> None:
    checkpoints = Memory([])
    resumed(tmp_path, checkpoints, 6)
    with offline(tmp_path, run_id="r") as run:
        before = run.history.segments[-1]
        next(Guard(run, checkpoints=checkpoints, every=2, resume_from=4).steps(Indices(), 9))
        assert run.outdated(rollback(segment=before, step=5)) == "the run was rewound after it was decided"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (3, "resume_from=3: no checkpoint of that step can be restored; choose one of 0, 2, 4, 5"),
        (4, "resume_from=4: no checkpoint of that step can be restored; choose one of 0, 2, 5"),
        (5, "resume_from=5: no checkpoint of that step can be restored; choose one of 0, 2, 4"),
    ],
)
def test_a_step_without_a_checkpoint_that_can_be_restored_is_refused_before_training(step: int, said: str) -> None:
    class Damaged(Memory):
        """Step 4 falls back to an older one, and a rollback has left step 5."""

        def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
            return super().load(2 if step == 4 else step)

    checkpoints, run = Damaged([]), ScriptedRun()
    train(run, checkpoints, 5)
    run.history.rewound_to = [4]
    with pytest.raises(ConfigurationError) as refused:
        next(Guard(run, checkpoints=checkpoints, every=2, resume_from=step).steps(Indices(), 9))
    assert str(refused.value) == said
    assert [one[0] for one in run.recorded] == ["start"]


def test_resume_from_in_a_run_without_checkpoints_is_refused() -> None:
    said = "resume_from=4: no checkpoint of that step can be restored; there is no other one: is the run_id right?"
    with pytest.raises(ConfigurationError) as refused:
        next(Guard(ScriptedRun(), checkpoints=Memory([]), resume_from=4).steps(Indices(), 9))
    assert str(refused.value) == said
    with pytest.raises(ValueError, match="resume_from=-1 must be a step, from 0"):
        Guard(ScriptedRun(), checkpoints=Memory([]), resume_from=-1)


@pytest.mark.slow
@pytest.mark.parametrize(("orders", "until"), [({}, 7), (FIRST, 19)])
def test_a_restarted_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, orders: dict[int, Order], until: int
) -> None:
    whole = dict(Tiny(tmp_path / "a").run(ScriptedRun(dict(orders)), 25))
    first = dict(Tiny(tmp_path / "b").run(ScriptedRun(dict(orders)), until))
    assert first | dict(Tiny(tmp_path / "b").run(ScriptedRun(), 25)) == whole


@pytest.mark.slow
def test_an_order_from_a_collector_is_executed_answered_and_never_executed_again(
    collector: FakeCollector, tmp_path: Path
) -> None:
    def loop(until: int) -> None:
        with lossguard.init("project", run_id="r", url=collector.url, directory=tmp_path) as run:
            for step, batch in Guard(run, checkpoints=checkpoints, every=2).steps(Indices(), until):
                checkpoints.model.append(batch)
                run.log(step, loss=1.0)
                if step == 5 and not collector.answers and not collector.orders:
                    collector.order(id=3, kind="rollback", rewind_to=2, skip_from=4, skip_to=8)
                    run.log(6, loss=9.0)
                    assert eventually(lambda: bool(run.inbox.orders))  # type: ignore[attr-defined]
                pause(0.01)  # a step takes time, so that the sender delivers between two of them

    checkpoints = Memory([])
    loop(8)
    assert checkpoints.model == [0, 1, 2, 3, 8, 9, 10, 11]
    assert "rollback" in collector.runs["r"]["capabilities"]
    figures = {"rewound_to": 2, "skip_from": 4, "skip_to": 8, "compared": False}
    assert collector.answers == {3: {"state": "applied", "key": "k3", **figures}}
    assert collector.rows[1, 4].items() >= {"loss": 1.0, "batch_index": 8}.items()
    assert [segment["reason"] for segment in collector.segments] == ["start", "rollback"]
    assert collector.restorable == [0, 2, 4, 6, 8]
    collector.order(id=3, kind="rollback", rewind_to=2, skip_from=4, skip_to=8)
    loop(10)
    assert checkpoints.model == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]


class Fragile(Memory):
    """Restoring a step in `broken` fails with the model half-restored."""

    def __init__(self, broken: set[int]) -> None:
        super().__init__([])
        self.broken = broken

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        if step in self.broken:
            self.model[:] = [666]
            raise RuntimeError("out of memory")
        return super().load(step, not_before=not_before)


def test_a_rollback_that_fails_half_way_is_refused_and_the_newest_checkpoint_is_restored() -> None:
    run, checkpoints = ScriptedRun({8: rollback(rewind_to=3)}), Fragile({3})
    seen = train(run, checkpoints, 8)
    assert seen == [*((n, n) for n in range(7)), (6, 6), (7, 7)]
    assert checkpoints.model == list(range(8))
    refused = ("refused", 1, "restoring failed: RuntimeError: out of memory")
    assert run.recorded[1:] == [refused, ("rewind", 6, None, None)]


def test_a_model_that_stays_half_restored_is_never_trained_on() -> None:
    run, checkpoints = ScriptedRun({8: rollback(rewind_to=3)}), Fragile({3, 6})
    with pytest.raises(CheckpointMismatch, match="the model is half-restored, so training stops here"):
        train(run, checkpoints, 8)
    assert run.recorded[-1][:2] == ("refused", 1)


def record_some(checkpoints: Any, folder: Path, until: int, **options: Any) -> list[int]:
    with lossguard.init("project", directory=folder, **options) as run:
        return [step for step, _ in Guard(run, checkpoints=checkpoints).steps(Indices(), until)]


def test_a_new_run_does_not_continue_from_the_checkpoints_of_another(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "ckpt", box=Box())
    assert record_some(checkpoints, tmp_path, 3, run_id="old") == [0, 1, 2]
    with pytest.raises(CheckpointError, match=r"ckpt holds checkpoints of run 'old'.*run_id='old'.*another folder"):
        record_some(checkpoints, tmp_path, 6, run_id="new")
    assert record_some(checkpoints, tmp_path, 6, run_id="old") == [3, 4, 5]


def test_the_same_run_continues_without_its_spool(tmp_path: Path) -> None:
    """On another machine only the checkpoints are there; a run that records nothing leaves them to their owner."""
    checkpoints = Memory([])
    record_some(checkpoints, tmp_path / "here", 3, run_id="r")
    assert record_some(checkpoints, tmp_path / "there", 5, run_id="r") == [3, 4]
    assert record_some(checkpoints, tmp_path, 7, mode="off") == [5, 6]
    assert record_some(checkpoints, tmp_path / "elsewhere", 8, run_id="r") == [7]


def test_checkpoints_that_name_no_run_are_accepted(tmp_path: Path) -> None:
    checkpoints = Memory([])
    record_some(checkpoints, tmp_path, 3, run_id="old")
    for _, state in checkpoints.saved.values():
        state["run"] = None
    assert record_some(checkpoints, tmp_path, 5, run_id="new") == [3, 4]


def test_a_guard_does_nothing_to_checkpoints_that_another_process_writes(tmp_path: Path) -> None:
    run, box = ScriptedRun(), Box()
    run.lock_wait = 0.0
    checkpoints = Checkpoints(tmp_path, blocking=True, box=box)
    checkpoints.save(0, {"step": 0})
    with (tmp_path / "lock").open("rb") as file:  # another open file is as another process
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(lossguard.ConfigurationError, match="is in use by process"):
            next(Guard(run, checkpoints=checkpoints, every=1).steps(Indices(), 5))
        assert (run.recorded, checkpoints.steps()) == ([], [0])


@pytest.mark.parametrize(
    ("limits", "order", "why"),
    [
        (
            Limits(max_depth=3),
            {"rewind_to": 2},
            "it discards 5 steps, from 2 to 7, and max_depth=3",
        ),
        (Limits(not_after=0.5), {"rewind_to": 2}, "step 7 lies after 0.5 of the run's 10 steps (not_after=0.5)"),
    ],
)
def test_an_order_beyond_the_limits_is_refused_with_the_reason_and_training_continues(
    limits: Limits, order: dict[str, int], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = ScriptedRun({8: rollback(**order)})
    guard = Guard(run, checkpoints=Memory([]), every=2, limits=limits)
    assert list(guard.steps(Indices(), 10)) == [(step, step) for step in range(10)]
    assert run.recorded[1:] == [("refused", 1, why)]
    assert caplog.messages == [f"an order was refused: {why}"]


def test_rollbacks_of_a_day_are_counted_and_the_next_one_is_refused() -> None:
    run = ScriptedRun({3: rollback(rewind_to=0), 6: rollback(id=2, rewind_to=0)})
    train(run, Memory([]), 6, limits=Limits(rollbacks_per_day=1))
    assert run.recorded[-1] == ("refused", 2, "1 rollback within 24 hours, and rollbacks_per_day=1")


def test_a_damaged_checkpoint_does_not_take_a_run_further_back_than_its_limits(tmp_path: Path) -> None:
    """The order is refused before anything has changed: no state is loaded, and none is saved to come back to."""
    run, box = ScriptedRun({8: rollback(rewind_to=4, skip_from=4, skip_to=7)}), Box(-1)
    checkpoints = Checkpoints(tmp_path, box=box)
    guard = Guard(run, checkpoints=checkpoints, every=2, limits=Limits(max_depth=3))
    for step, batch in guard.steps(Indices(), 9):
        assert batch == step == box.value + 1
        box.value = step
        if step == 6:
            checkpoints.settle(wait=True)
            (tmp_path / "step-000000004" / "box.pt").write_bytes(b"damaged")
    why = "no checkpoint from step 4 to step 4 is intact, and max_depth permits none before step 4"
    assert run.recorded[1:] == [("refused", 1, why)]
    assert guard.ledger.skips == []
    assert checkpoints.steps() == [0, 2, 4, 6, 8, 9]


def test_a_rollback_within_its_limits_saves_nothing_of_what_it_leaves() -> None:
    run, checkpoints = ScriptedRun({8: rollback(rewind_to=4)}), Memory([])
    guard = Guard(run, checkpoints=checkpoints, every=2, limits=Limits(max_depth=3))
    saved = {step for _ in guard.steps(Indices(), 8) for step in checkpoints.steps()}
    assert saved == {0, 2, 4, 6}


def test_a_store_that_cannot_say_how_far_back_it_goes_gets_no_order_beyond_a_limit() -> None:
    class Simple(Memory):
        def load(self, step: int) -> dict[str, Any]:  # type: ignore[override]
            return super().load(step)

    run = ScriptedRun({8: rollback(rewind_to=4)})
    guard = Guard(run, checkpoints=Simple([]), every=2, limits=Limits(max_depth=3))
    assert list(guard.steps(Indices(), 9)) == [(step, step) for step in range(9)]
    why = "max_depth needs checkpoints whose load(step, not_before=..) knows the oldest step"
    assert run.recorded[1:] == [("refused", 1, why)]


def test_observe_refuses_every_further_order() -> None:
    run, checkpoints = ScriptedRun({6: rollback(rewind_to=2)}), Memory([])
    guard = Guard(run, checkpoints=checkpoints, every=2)
    for step, _ in guard.steps(Indices(), 6):
        if step == 3:
            guard.observe()
    assert run.recorded[1:] == [("refused", 1, "the trainer carries out no orders: guard.observe() was called")]


def test_the_kill_file_ends_a_hold_and_no_order_of_the_inbox_is_carried_out(tmp_path: Path) -> None:
    class Killing(ScriptedRun):
        def accept(self, order: Order, detail: str = "") -> None:
            super().accept(order, detail)
            (tmp_path / "no-orders").touch()

    run = Killing({4: new_order(OrderKind.HOLD, 1), 12: rollback(id=2, rewind_to=0)})
    run.directory = tmp_path
    assert list(Guard(run, checkpoints=Memory([]), every=2).steps(Indices(), 9)) == [(n, n) for n in range(9)]
    assert run.recorded[1:3] == [("accepted", 1), ("resume", 3, None, None)]
    assert run.recorded[3:] == [("refused", 2, f"the trainer carries out no orders: {tmp_path}/no-orders exists")]


def test_a_logged_step_says_how_long_the_loop_waited_for_its_batch(tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        for index in range(3):
            pause(0.01)
            yield index

    with lossguard.init("project", run_id="r", directory=tmp_path, mode="offline") as run:
        for step, _ in Guard(run, checkpoints=Memory([])).steps(slow(), 3):
            own = {"data_seconds": 0.5} if step == 1 else {}
            run.log(step, loss=1.0, **own)
    files = [path.read_text().splitlines() for path in tmp_path.rglob("*") if path.is_file()]
    lines = [json.loads(line) for file in files for line in file if '"data_seconds"' in line]
    waited = [line["metrics"]["data_seconds"] for line in lines]
    assert len(waited) == 3
    assert waited[1] == 0.5
    assert min(waited) >= 0.01


class Crash(Exception):
    pass


@pytest.mark.parametrize(("memory", "blocking"), [(0, False), (0, True), (2, False)])
def test_a_restart_resumes_from_before_a_nan_and_the_good_checkpoints_stay(
    tmp_path: Path, memory: int, blocking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, rows = nn.Linear(2, 1), torch.ones(40, 2)
    rows[12] = torch.nan
    optimizer = torch.optim.AdamW(model.parameters())

    def start(run: Run, until: int) -> list[int]:
        options: dict[str, Any] = {"keep": 2, "memory": memory, "memory_every": 3, "blocking": blocking}
        checkpoints = Checkpoints(tmp_path / "checkpoints", **options, model=model, optimizer=optimizer)
        seen: list[int] = []
        for step, batch in Guard(run, checkpoints=checkpoints, every=5).steps(list(rows), until):
            if not seen:
                assert model.weight.isfinite().all()
            if step == 22:
                raise Crash
            seen.append(step)
            optimizer.zero_grad()
            model(batch).sum().backward()
            optimizer.step()
        return seen

    def names() -> set[str]:
        folder = tmp_path / "checkpoints"
        found = [path for place in (folder, folder / "uncertified") for path in place.glob("step-*/manifest.json")]
        return {path.parent.relative_to(folder).as_posix() for path in found}

    run = ScriptedRun()
    with pytest.raises(Crash):
        start(run, until=30)
    good = {"step-000000000", "step-000000005", "step-000000010"}
    apart = {"uncertified/step-000000015", "uncertified/step-000000020"}
    eventually(lambda: names() == good | apart)  # the last one is written in the background
    assert max(run.restorable) == (12 if memory else 10)
    [(kind, details)] = run.events
    assert (kind, details["reason"]) == ("checkpoint_uncertified", "model.weight holds NaN")
    step = details["step"]
    assert step in (15, 18)  # whichever was known first: that of the background, or that of the memory
    newest = f"the newest good one is step {12 if memory else 10}"
    warnings = [record.message for record in caplog.records if "never restored" in record.message]
    assert warnings == [f"the state at step {step} is never restored: model.weight holds NaN; {newest}"]
    start(ScriptedRun(), until=21)  # ends with NaN again: its last checkpoint is kept apart, too
    assert start(ScriptedRun(), until=12) == [10, 11]


def test_a_state_in_the_middle_of_a_spike_is_not_restored_also_without_a_collector(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Linear(1, 1)

    def start(run: Run, until: int) -> int | None:
        first = None
        options: dict[str, Any] = {"keep": 2, "memory": 1, "memory_every": 5, "blocking": True}
        checkpoints = Checkpoints(tmp_path / "checkpoints", **options, model=model)
        for step, _ in Guard(run, checkpoints=checkpoints, every=10).steps(Indices(), until):
            first = step if first is None else first
            if step == 185:
                raise Crash
            run.log(step, loss=9.0 if 150 <= step < 170 or step >= 180 else 2 + step % 7 / 100, grad_norm=1.0)
        return first

    with pytest.raises(Crash), offline(tmp_path, run_id="r") as run:
        start(run, until=300)
    apart = sorted(path.name for path in (tmp_path / "checkpoints" / "uncertified").iterdir())
    assert apart == ["step-000000160", "step-000000170"]
    events = [record["details"] for record in records(run) if record.get("event") == "checkpoint_uncertified"]
    reason = "the loss of step 159 is in a spike: 9, and its band ends at 2.233"
    assert events == [{"step": 160, "reason": reason}]
    warnings = [record.message for record in caplog.records if "never restored" in record.message]
    assert warnings == [f"the state at step 160 is never restored: {reason}; the newest good one is step 155"]
    with offline(tmp_path, run_id="r") as run:
        assert start(run, until=181) == 180
