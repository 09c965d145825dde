import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lossguard.guard.limits_in_force import CANNOT
from lossguard.guard.restart_state import RestartState
from lossguard.launch.adapters import ADAPTERS, Options
from lossguard.launch.child import Child
from lossguard.launch.launcher import ChildEnd
from lossguard.launch.restarting import EARLIER_FILE, NO_SKIP, RestartSupervisor
from lossguard.spool.history import History
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.states import OrderKind
from tests.lossguard.launch.launching import SECONDS, Launching
from tests.lossguard.launch.resuming import GENERIC, SCRIPT, plain, starts, trained
from tests.lossguard.recorded import offline
from tests.lossguard.scripted import ScriptedRun, new_order, rollback
from tests.lossguard_server.process_state import alive
from tests.waiting import wait_for

SKIPS = ("--run-id", "r", "--project", "p", "--restart-backoff", "0.05", *GENERIC, "--can-skip")
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SCRIPT


def order(launching: Launching, **fields: Any) -> None:
    launching.collector.order(**{"id": 1, "key": "k1", "kind": "rollback", **fields})


def segments(launching: Launching) -> list[tuple[str, int]]:
    return [(each["reason"], each["fork_step"]) for each in launching.collector.segments]


def applied(launching: Launching) -> list[dict[str, Any]]:
    """What the spools say of the orders that were executed."""
    spools = sorted((launching.folder / "lossguard" / "p" / "r").glob("*.spool"))
    lines = [json.loads(line) for path in spools for line in path.read_text().splitlines()]
    return [line for line in lines if "segment" in line and line["order"] is not None]


@pytest.mark.slow
def test_an_order_stops_the_command_and_starts_it_from_an_earlier_checkpoint_without_the_batches(
    launching: Launching,
) -> None:
    process = launching.script(SCRIPT, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    capabilities = lambda: launching.collector.runs["r"]["capabilities"] == ["rollback"]  # noqa: E731
    wait_for(capabilities, seconds=SECONDS, what="the capabilities")
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert trained(launching.folder) == plain(60, (5, 9))
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 5]
    assert segments(launching) == [("start", 0), ("rollback", 5)]
    (line,) = applied(launching)
    assert (line["key"], line["fork_step"]) == ("k1", 5)
    assert line["applied"] == {"rewound_to": 5, "reason": "a test asked", "skip_from": 5, "skip_to": 9}
    assert launching.metric("batch_index", 1) == dict(zip(range(5, 60), plain(60, (5, 9))[5:], strict=True))
    assert sorted(launching.collector.restorable) == list(range(5, 61, 5))
    late = sorted(int(path.stem[5:]) for path in (launching.folder / "out.discarded").iterdir())
    assert late == list(range(10, 10 + 5 * len(late), 5))
    assert launching.collector.finished == ["finished"]


@pytest.mark.slow
def test_an_order_for_what_has_killed_the_command_is_executed_at_its_restart(launching: Launching) -> None:
    """The command dies of its loss, and the order comes while the launcher waits to start it again."""
    process = launching.script(SCRIPT, "--die-at", "23", options=(*SKIPS, "--restart-backoff", "200"))
    launching.wait_for_step(22)
    order(launching, rewind_to=15, skip_from=20, skip_to=30)
    _, err = process.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(60, (20, 30)), err
    assert segments(launching) == [("start", 0), ("rollback", 15)]


def kill_and_look(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return not alive(pid)


@pytest.mark.system
@pytest.mark.parametrize("is_command_killed", [False, True])
def test_an_order_survives_kill_9_of_the_launcher_before_the_command_has_stopped(
    launching: Launching, is_command_killed: bool
) -> None:
    """The command ignores SIGTERM, so that there is time."""
    first = launching.script(DEAF, "--until", "120", "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    kept = launching.folder / "lossguard" / ".launch" / "r" / "restart.json"
    wait_for(kept.exists, seconds=SECONDS, what="the order is kept")
    first.kill()
    if is_command_killed:
        pid = starts(launching.folder)[0][0]
        wait_for(lambda: kill_and_look(pid), seconds=SECONDS, what="the command has ended")
    (launching.folder / "go").touch()
    first.communicate(timeout=SECONDS)
    second = launching.script(DEAF, "--until", "120", options=(*SKIPS, "--grace", "0.2"))
    second.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(120, (5, 9))
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 5]
    assert [line["key"] for line in applied(launching)] == ["k1"]
    assert not kept.exists()


@pytest.mark.system
def test_a_hang_is_noticed_its_stacks_are_taken_and_the_command_is_started_again(launching: Launching) -> None:
    """The shortest hang is 60 s: a module that the launcher's interpreter imports first makes that 1 s, while it hangs.

    Before and afterwards a step may take longer on a busy machine.
    """
    (launching.fakes / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'launch' in sys.orig_argv:\n"
        "    import lossguard.launch.restarting as restarting\n"
        "    class HangDetector(restarting.HangDetector):\n"
        "        def silent_for(self, now):\n"
        "            return super().silent_for(now) if os.path.exists('hangs') else None\n"
        "    restarting.HangDetector = lambda: HangDetector(min_seconds=1.0)\n"
    )
    process = launching.script(
        SCRIPT, "--hang-at", "103", "--until", "120", options=(*SKIPS, "--restart-hangs", "--grace", "0.2")
    )
    run = launching.folder / "lossguard" / "p" / "r"
    wait_for(lambda: list(run.glob("stacks-*")), seconds=SECONDS, what="the stacks of a hang")
    (launching.folder / "hung").touch()
    _, err = process.communicate(timeout=SECONDS)
    assert "has logged no step for" in err
    (stacks,) = run.glob("stacks-*.txt")
    assert f"process {starts(launching.folder)[0][0]}" in stacks.read_text()
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 100]
    assert trained(launching.folder) == plain(120)


class OrderedRun(ScriptedRun):
    """A run that has logged step 0 alone, and gets one order."""

    lost: str | None = None

    def __init__(self, order: Order | None = None) -> None:
        super().__init__({} if order is None else {1: order})

    @property
    def newest_step(self) -> int:
        return 0

    def revoked(self, order: Order) -> str | None:
        return self.lost


def supervised(
    folder: Path,
    run: OrderedRun | None = None,
    *,
    can_skip: bool = True,
    first_step: int = 0,
    max_restarts: int = 10,
    run_folder: Path | None = None,
) -> RestartSupervisor:
    """A supervisor that has looked once, with checkpoints of the steps 5 and 20 that a new run finds there."""
    for number in (5, 20) if run_folder is None else ():
        (folder / f"step_{number}").touch()
    given = {"checkpoints": f"{folder}/step_{{step}}", "resume_args": "--resume {step}"}
    options = Options(**given, can_skip=can_skip, first_step=first_step)
    adapter = ADAPTERS["generic"](["train"], {}, options)
    limits: Any = {"max_restarts": max_restarts, "grace": 30.0, "backoff": 0.0}
    supervisor = RestartSupervisor(["train"], adapter, folder=folder, run_folder=run_folder, **limits)
    if run is not None:
        supervisor.watch(Child(pid=2**30, started="", command=["train"], journal=folder / "journal"), run)
    return supervisor


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (new_order(OrderKind.HOLD, 1), CANNOT.format("hold")),
        (rollback(rewind_to=4), "there is no checkpoint at or before step 4"),
        (rollback(rewind_to=5, skip_from=5, skip_to=9), NO_SKIP),
        (rollback(rewind_to=5), "it discards 15 steps, from 5 to 20, and max_depth=10"),  # it logs seldom
        (rollback(rewind_to=12), "max_depth permits no step before 10, and the newest checkpoint is of step 5"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused_in_a_sentence_and_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Order, why: str
) -> None:
    if "max_depth" in why:
        monkeypatch.setenv("LOSSGUARD_LIMITS", "max_depth=10")
    run = OrderedRun(asked)
    supervisor = supervised(tmp_path, run, can_skip=why != NO_SKIP)
    assert run.recorded == [("refused", 1, why)]
    assert (run.skips, run.restorable) == (why != NO_SKIP, [5, 20])
    assert RestartState.read(tmp_path, History()).order is None
    supervisor.give_up(run, "it failed")
    assert run.unguarded == "it failed"


@pytest.mark.parametrize("saves", [False, True])
def test_a_command_that_counts_from_1_goes_on_with_the_step_after_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: bool
) -> None:
    stops: list[float] = []
    monkeypatch.setattr(ADAPTERS["generic"], "saves_when_stopped", saves)
    monkeypatch.setattr("lossguard.launch.restarting.Stop", lambda child, now, grace: stops.append(grace))
    run = OrderedRun(rollback(rewind_to=6, skip_from=6, skip_to=9))
    supervisor = supervised(tmp_path, run, first_step=1)
    assert (run.restorable, stops) == ([6, 21], [0.0 if saves else 30.0]), "what it saves at SIGTERM is not wanted"
    started = supervisor.after(ChildEnd(-15), run)
    assert started is not None
    assert started.command == ["train", "--resume", "5"]
    assert [(each[0], each[1]) for each in run.recorded] == [("rollback", 6)]
    assert [supervisor.batch_of(step) for step in (6, 7, 8)] == [5, 9, 10]
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_5"]


def test_a_release_is_accepted_though_nothing_is_held(tmp_path: Path) -> None:
    run = OrderedRun(new_order(OrderKind.RELEASE, 1))
    supervised(tmp_path, run)
    assert run.recorded == [("accepted", 1)]


def test_a_folder_of_another_program_is_said_once_and_the_command_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new run trains; it just cannot be rolled back."""
    (tmp_path / "ckpt" / "step-1").mkdir(parents=True)
    adapter = ADAPTERS["megatron"](["train"], {}, Options(checkpoints=str(tmp_path / "ckpt")))
    supervisor = RestartSupervisor(
        ["train"], adapter, folder=tmp_path, run_folder=None, max_restarts=10, grace=30.0, backoff=1.0
    )
    run = OrderedRun()
    supervisor.watch(Child(pid=2**30, started="", command=["train"], journal=tmp_path / "journal"), run)
    supervisor.after(ChildEnd(0), run)
    assert [text.startswith("there is nothing to roll back to: ") for text in caplog.messages] == [True]
    assert "ckpt holds no checkpoints of Megatron-LM" in caplog.text


@pytest.mark.parametrize("lost", ["the lease of the run ran out meanwhile", None])
def test_an_order_that_does_not_count_any_more_once_the_command_has_stopped_is_not_executed(
    tmp_path: Path, lost: str | None
) -> None:
    run = OrderedRun(rollback(rewind_to=5))
    supervisor = supervised(tmp_path, run)
    assert RestartState.read(tmp_path, History()).order is not None
    run.lost = lost
    if lost is None:
        supervisor.order_limits.observe("a person said so")
    started = supervisor.after(ChildEnd(-15), run)
    assert started is not None
    assert started.command == ["train", "--resume", "20"]
    assert run.recorded == ([] if lost else [("refused", 1, "the trainer carries out no orders: a person said so")])
    assert RestartState.read(tmp_path, History()).order is None


@pytest.mark.parametrize(
    ("max_restarts", "num_starts", "why"),
    [
        (10, 3, "it ended with exit code 7, and it ended 4 times in a row without a new step"),
        (0, 0, "exit code 7, and it was started again 0 times within an hour"),
    ],
)
def test_a_command_that_dies_is_started_from_its_newest_checkpoint_within_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, max_restarts: int, num_starts: int, why: str
) -> None:
    supervisor = supervised(tmp_path, max_restarts=max_restarts)
    begun = []
    while (restart := supervisor.after(ChildEnd(7), None)) is not None:
        begun.append(restart.command[1:])
    assert begun == [["--resume", number] for number in ("20", "5", "5")][:num_starts]
    assert caplog.messages[-1].startswith("the command is not started again: it ended with ")
    assert caplog.messages[-1].removesuffix(" (--max-restarts)").endswith(why)


@pytest.mark.parametrize("end", [ChildEnd(0), ChildEnd(7, asked_to_stop=True), ChildEnd(None, ended_cleanly=True)])
def test_a_command_that_is_done_or_was_asked_to_stop_is_not_started_again(tmp_path: Path, end: ChildEnd) -> None:
    assert supervised(tmp_path).after(end, None) is None


def test_a_checkpoint_that_was_discarded_and_is_written_anew_counts_after_kill_9_of_the_launcher(
    tmp_path: Path,
) -> None:
    """Killed between the line of the spool that says that the order was executed, and the file with the state."""
    RestartState(discarded=frozenset((5, 20, 30))).save(tmp_path)  # 5 and 20 could not be moved aside
    supervisor = supervised(tmp_path)
    first = supervisor.first(lambda: None)
    assert first is not None
    assert first.command == ["train"]
    (tmp_path / "step_30").touch()
    crashed = supervisor.after(ChildEnd(1), None)
    assert crashed is not None
    assert crashed.command == ["train", "--resume", "30"]


def test_a_new_run_loads_no_checkpoint_of_another_training_beyond_its_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, run = supervised(tmp_path), OrderedRun()
    first = supervisor.first(lambda: None)
    assert first is not None
    assert first.command == ["train"]
    assert caplog.messages == [
        f"{tmp_path} holds 2 checkpoints already, the newest of step 20: those beyond the step at which this run "
        "begins are not loaded, unless it writes them anew"
    ]
    (tmp_path / "step_10").touch()
    supervisor.after(ChildEnd(0), run)
    assert run.restorable == [10]
    os.utime(tmp_path / "step_20", (2e9, 2e9))
    supervisor.after(ChildEnd(0), run)
    assert run.restorable == [10, 20]


@pytest.mark.parametrize("is_alive", [False, True])
def test_the_next_launcher_of_a_run_loads_no_checkpoint_of_another_training_either(
    tmp_path: Path, is_alive: bool
) -> None:
    """A command that is still alive was not started by it."""
    with offline(tmp_path, run_id="r") as begun:
        begun.log(0, loss=1.0)
    first, run = supervised(tmp_path), OrderedRun()
    first.first(lambda: None)
    first.after(ChildEnd(0), run)
    (tmp_path / "step_10").touch()
    (spool,) = tmp_path.rglob("*.spool")
    second = supervised(tmp_path, run_folder=spool.parent)
    start = second.after(ChildEnd(1), OrderedRun()) if is_alive else second.first(lambda: None)
    assert start is not None
    assert start.command == ["train", "--resume", "10"]


@pytest.mark.parametrize("damage", [None, "{", "[]"])
def test_a_launcher_that_does_not_know_what_was_there_before_the_run_loads_all(
    tmp_path: Path, damage: str | None
) -> None:
    with offline(tmp_path, run_id="r") as begun:
        begun.log(0, loss=1.0)
    supervised(tmp_path).first(lambda: None)
    kept = tmp_path / EARLIER_FILE
    kept.unlink() if damage is None else kept.write_text(damage)
    (spool,) = tmp_path.rglob("*.spool")
    start = supervised(tmp_path, run_folder=spool.parent).first(lambda: None)
    assert start is not None
    assert start.command == ["train", "--resume", "20"]


def test_checkpoints_of_another_training_that_cannot_be_noted_do_not_end_the_launch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / EARLIER_FILE).mkdir()
    supervisor, run = supervised(tmp_path), OrderedRun()
    assert supervisor.first(lambda: None) is not None
    supervisor.after(ChildEnd(0), run)
    assert run.restorable == []
    assert [text.startswith(f"{tmp_path} cannot be written") for text in caplog.messages] == [False, True]


def test_a_run_that_continues_another_training_can_go_back_to_its_checkpoint(tmp_path: Path) -> None:
    class Continuing(OrderedRun):
        @property
        def newest_step(self) -> int:
            return 20

    supervisor, run = supervised(tmp_path), Continuing()
    (tmp_path / "step_30").touch()
    supervisor.first(lambda: None)
    supervisor.after(ChildEnd(0), run)
    assert run.restorable == [5, 20]
