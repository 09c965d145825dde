import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lossguard.guard.restart_state import RestartState
from lossguard.launch.adapters import Options, adapter_for
from lossguard.launch.child import Child
from lossguard.launch.launcher import ChildEnd, Restart
from lossguard.launch.restarting import RestartLimits, RestartSupervisor
from lossguard.run.run import Run
from lossguard.spool.history import History
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.states import OrderKind, Refusal
from tests.lossguard.launch.launching import SECONDS, Launching
from tests.lossguard.launch.resuming import GENERIC, SCRIPT, plain, starts, trained
from tests.lossguard_server.process_state import alive
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

OPTIONS = ("--run-id", "r", "--project", "p", "--restart-backoff", "0.05", *GENERIC)
SKIPS = (*OPTIONS, "--can-skip")


def order(launching: Launching, **fields: Any) -> None:
    launching.collector.order(**{"id": 1, "key": "k1", "kind": "rollback", **fields})


def segments(launching: Launching) -> list[tuple[str, int]]:
    return [(each["reason"], each["fork_step"]) for each in launching.collector.segments]


def applied(launching: Launching) -> list[dict[str, Any]]:
    """What the spools say of the orders that were executed."""
    spools = sorted((launching.folder / "lossguard" / "p" / "r").glob("*.spool"))
    lines = [json.loads(line) for path in spools for line in path.read_text().splitlines()]
    return [line for line in lines if "segment" in line and line["order"] is not None]


def wait_for_start(launching: Launching, number: int) -> None:
    path = launching.folder / "starts.jsonl"
    wait_for(lambda: path.exists() and len(starts(launching.folder)) >= number, seconds=SECONDS, what=f"start {number}")


def wait_for_capabilities(launching: Launching, *expected: str) -> None:
    wait_for(
        lambda: set(launching.collector.runs["r"]["capabilities"]) == set(expected),
        seconds=SECONDS,
        what="the capabilities",
    )


def test_an_order_stops_the_command_and_starts_it_from_an_earlier_checkpoint_without_the_batches(
    launching: Launching,
) -> None:
    process = launching.script(SCRIPT, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    wait_for_capabilities(launching, "rollback")
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


def test_a_command_that_cannot_skip_says_so_first_and_refuses_a_skip_but_not_a_rewind(launching: Launching) -> None:
    process = launching.script(SCRIPT, "--wait-at", "14", options=OPTIONS)
    launching.wait_for_step(12)
    wait_for_capabilities(launching, "rollback", "rollback-without-skip")
    registrations = [body["capabilities"] for _, path, body in launching.collector.requests if path.endswith("/runs")]
    assert ["rollback"] not in registrations
    order(launching, rewind_to=5, skip_from=5, skip_to=9)
    wait_for(lambda: 1 in launching.collector.answers, seconds=SECONDS, what="the refusal")
    order(launching, id=2, key="k2", rewind_to=5)
    process.communicate(timeout=SECONDS)
    assert launching.collector.answers[1]["detail"] == (
        "this command cannot leave batches out: order a rollback that skips none"
    )
    assert segments(launching)[1:] == [("rollback", 5)]
    assert trained(launching.folder) == plain(60)


def test_a_hold_and_an_order_without_a_checkpoint_are_refused_in_a_sentence(launching: Launching) -> None:
    process = launching.script(SCRIPT, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    order(launching, kind="hold")
    order(launching, id=2, key="k2", rewind_to=4)
    order(launching, id=3, key="k3", kind="release")
    wait_for(lambda: len(launching.collector.answers) == 3, seconds=SECONDS, what="three answers")
    (launching.folder / "go").touch()
    process.communicate(timeout=SECONDS)
    details = {number: answer["detail"] for number, answer in launching.collector.answers.items()}
    assert details == {
        1: "a launched command cannot be held at a step: roll it back, or stop it",
        2: "there is no checkpoint at or before step 4",
        3: "the command was not held",
    }
    assert len(starts(launching.folder)) == 1


def test_a_supervisor_that_fails_refuses_orders_with_the_reason_and_the_command_goes_on(launching: Launching) -> None:
    (launching.fakes / "sitecustomize.py").write_text(
        """
import os, sys
if "launch" in sys.orig_argv:
    from lossguard.launch.restarting import RestartSupervisor
    observe = RestartSupervisor._observe
    def fail(self, *arguments):
        if os.path.exists("fail"):
            raise RuntimeError("a test asked")
        observe(self, *arguments)
    RestartSupervisor._observe = fail
"""
    )
    process = launching.script(SCRIPT, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    wait_for_capabilities(launching, "rollback")
    (launching.folder / "fail").touch()
    why = "the supervisor of the command has failed (RuntimeError: a test asked)"
    wait_for_capabilities(launching, f"no-rollback:{why}")
    order(launching, rewind_to=7)
    wait_for(lambda: 1 in launching.collector.answers, seconds=SECONDS, what="the refusal")
    assert launching.collector.answers[1]["detail"] == why
    (launching.folder / "fail").unlink()
    (launching.folder / "go").touch()
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, trained(launching.folder)) == (0, plain(60)), err


def test_a_command_that_dies_is_started_again_from_its_newest_checkpoint(launching: Launching) -> None:
    ended = launching.run(SCRIPT, "--die-at", "23", options=SKIPS)
    assert (ended.code, trained(launching.folder)) == (0, plain(60))
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 20]
    assert segments(launching) == [("start", 0), ("resume", 20)]
    assert "the command is started again in 0.1 s: it ended with exit code 3" in ended.err


def test_an_order_for_what_has_killed_the_command_is_executed_at_its_restart(launching: Launching) -> None:
    """The command dies of its loss, and the order comes while the launcher waits to start it again."""
    process = launching.script(SCRIPT, "--die-at", "23", options=(*SKIPS, "--restart-backoff", "20"))
    launching.wait_for_step(22)
    order(launching, rewind_to=15, skip_from=20, skip_to=30)
    _, err = process.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(60, (20, 30)), err
    assert segments(launching) == [("start", 0), ("rollback", 15)]


def test_a_crash_loop_ends_with_a_sentence_and_the_exit_code_of_the_command(launching: Launching) -> None:
    ended = launching.run(SCRIPT, "--die-always", options=OPTIONS)
    assert ended.code == 7
    assert len(starts(launching.folder)) == 4
    assert "not started again: it ended with exit code 7, and it ended 4 times in a row without a new step" in ended.err


def test_the_restarts_of_an_hour_are_limited(launching: Launching) -> None:
    ended = launching.run(SCRIPT, "--die-at", "23", options=(*SKIPS, "--max-restarts", "0"))
    assert ended.code == 3
    assert "it was started again 0 times within an hour (--max-restarts)" in ended.err


def test_a_signal_to_the_launcher_ends_the_command_for_good(launching: Launching) -> None:
    process = launching.script(SCRIPT, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGTERM
    assert len(starts(launching.folder)) == 1
    assert launching.collector.finished == ["interrupted"]


def test_an_order_survives_kill_9_of_the_launcher_before_the_command_has_stopped(launching: Launching) -> None:
    """The command ignores SIGTERM, so that there is time."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SCRIPT
    first = launching.script(script, "--until", "120", "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    kept = launching.folder / "lossguard" / ".launch" / "r" / "restart.json"
    wait_for(kept.exists, seconds=SECONDS, what="the order is kept")
    first.kill()
    (launching.folder / "go").touch()
    first.communicate(timeout=SECONDS)
    second = launching.script(script, "--until", "120", options=(*SKIPS, "--grace", "0.2"))
    wait_for_start(launching, 2)
    second.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(120, (5, 9))
    assert [step for _, _, step, _ in starts(launching.folder)] == [0, 5]
    assert [line["key"] for line in applied(launching)] == ["k1"]


def test_a_launcher_and_a_command_that_were_both_killed_leave_the_order_to_the_next_launcher(
    launching: Launching,
) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SCRIPT
    first = launching.script(script, "--wait-at", "14", options=SKIPS)
    launching.wait_for_step(12)
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    kept = launching.folder / "lossguard" / ".launch" / "r" / "restart.json"
    wait_for(kept.exists, seconds=SECONDS, what="the order is kept")
    first.kill()
    pid = starts(launching.folder)[0][0]
    wait_for(lambda: kill_and_look(pid), seconds=SECONDS, what="the command has ended")
    first.communicate(timeout=SECONDS)
    second = launching.script(script, options=SKIPS)
    _, err = second.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(60, (5, 9)), err
    assert [line["key"] for line in applied(launching)] == ["k1"]
    assert not kept.exists()


def kill_and_look(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return not alive(pid)


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace_with_all_below_it(launching: Launching) -> None:
    below = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("workers", "a").write(f"{worker.pid}\\n")
"""
    process = launching.script(below + SCRIPT, "--wait-at", "14", options=(*SKIPS, "--grace", "0.5"))
    launching.wait_for_step(12)
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    wait_for_start(launching, 2)
    first, second = map(int, (launching.folder / "workers").read_text().split())
    wait_for(lambda: not alive(first), seconds=SECONDS, what="the end of what was below the first one")
    kill_and_look(second)  # it has the pipes of the launcher, too
    process.communicate(timeout=SECONDS)
    assert trained(launching.folder) == plain(60, (5, 9))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--restart-with", "nemo"),
            "--restart-with 'nemo' must be one of hf, megatron, torchtitan, nanochat, generic, script",
        ),
        (("--restart-with", "generic"), "--checkpoints '' must have {step} once"),
        (("--restart-with", "hf"), "the command has no --output_dir: name the Trainer's output_dir"),
        (("--restart-with", "megatron"), "the command has no --save"),
        (("--restart-with", "nanochat"), "the command has no --save-every"),
        ((*OPTIONS, "--grace", "-1"), "--grace -1.0 must not be below 0"),
    ],
)
def test_a_wrong_option_ends_with_one_sentence_before_the_command_starts(
    launching: Launching, options: tuple[str, ...], sentence: str
) -> None:
    ended = launching.run("open('started', 'w')", options=options)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert sentence in ended.err
    assert not (launching.folder / "started").exists()


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


def test_a_checkpoint_that_was_discarded_and_is_written_anew_counts_after_kill_9_of_the_launcher(
    tmp_path: Path,
) -> None:
    """Killed between the line of the spool that says that the order was executed, and the file with the state."""
    executed = RestartState(discarded=frozenset((5, 10)))
    executed.save(tmp_path)
    (tmp_path / "step_5").touch()  # it could not be moved aside
    options = Options(checkpoints=f"{tmp_path}/step_{{step}}", resume_args="--resume {step}")
    adapter = adapter_for("generic", ["train"], {}, options)
    supervisor = RestartSupervisor(
        ["train"], adapter, folder=tmp_path, run_folder=None, limits=RestartLimits(backoff=0.0)
    )
    assert supervisor.first(lambda: None) == Restart(command=["train"])
    (tmp_path / "step_10").touch()
    crashed = supervisor.after(ChildEnd(1), None)
    assert crashed is not None
    assert crashed.command == ["train", "--resume", "10"]


def test_orders_beyond_the_limits_are_refused_and_the_command_goes_on_undisturbed(launching: Launching) -> None:
    options = (*SKIPS, "--limits", "max_depth=10,max_skip=3")
    process = launching.script(SCRIPT, "--wait-at", "14", options=options)
    launching.wait_for_step(12)
    wait_for_capabilities(launching, "rollback", "limits:max_depth=10,max_skip=3")
    order(launching, rewind_to=7, skip_from=5, skip_to=9)
    wait_for(lambda: 1 in launching.collector.answers, seconds=SECONDS, what="the first refusal")
    (launching.folder / "lossguard" / "p" / "r" / "no-orders").touch()
    order(launching, id=2, key="k2", rewind_to=10)
    wait_for(lambda: 2 in launching.collector.answers, seconds=SECONDS, what="the second refusal")
    (launching.folder / "go").touch()
    process.communicate(timeout=SECONDS)
    assert launching.collector.answers[1]["detail"] == "it skips 4 batches, and max_skip=3"
    assert launching.collector.answers[1]["refusal"] == "limits"
    assert launching.collector.answers[2]["detail"].endswith("r/no-orders exists")
    assert trained(launching.folder) == plain(60)
    assert len(starts(launching.folder)) == 1


class OrderedRun(Run):
    """A run that has logged step 0 alone, and gets one order."""

    def __init__(self, order: Order) -> None:
        super().__init__(id="r")
        self.orders, self.refusals = [order], list[str]()
        self.lost: str | None = None

    @property
    def newest_step(self) -> int:
        return 0

    def take_order(self) -> Order | None:
        return self.orders.pop() if self.orders else None

    def refuse(self, order: Order, detail: str, refusal: Refusal | None = None) -> None:
        self.refusals.append(detail)

    def revoked(self, order: Order) -> str | None:
        return self.lost


def test_a_command_that_logs_seldom_stands_at_its_newest_checkpoint_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_LIMITS", "max_depth=10")
    for number in (5, 20):
        (tmp_path / f"step_{number}").touch()
    options = Options(checkpoints=f"{tmp_path}/step_{{step}}", resume_args="--resume {step}")
    adapter = adapter_for("generic", ["train"], {}, options)
    run = OrderedRun(Order(id=1, kind=OrderKind.ROLLBACK, rewind_to=5))
    supervisor = RestartSupervisor(["train"], adapter, folder=tmp_path, run_folder=None)
    gone = Child(pid=2**30, started="", command=["train"], journal=tmp_path / "journal")
    supervisor.watch(gone, run)
    assert run.refusals == ["it discards 15 steps, from 5 to 20, and max_depth=10"]


@pytest.mark.parametrize("lost", ["the lease of the run ran out meanwhile", None])
def test_an_order_that_does_not_count_any_more_once_the_command_has_stopped_is_not_executed(
    tmp_path: Path, lost: str | None
) -> None:
    for number in (5, 20):
        (tmp_path / f"step_{number}").touch()
    options = Options(checkpoints=f"{tmp_path}/step_{{step}}", resume_args="--resume {step}")
    adapter = adapter_for("generic", ["train"], {}, options)
    run = OrderedRun(Order(id=1, kind=OrderKind.ROLLBACK, rewind_to=5))
    supervisor = RestartSupervisor(["train"], adapter, folder=tmp_path, run_folder=None)
    supervisor.watch(Child(pid=2**30, started="", command=["train"], journal=tmp_path / "journal"), run)
    assert RestartState.read(tmp_path, History()).order is not None
    run.lost = lost
    if lost is None:
        supervisor.order_limits.observe("a person said so")
    started = supervisor.after(ChildEnd(-15), run)
    assert started is not None
    assert started.command == ["train", "--resume", "20"]
    assert run.refusals == ([] if lost else ["the trainer carries out no orders: a person said so"])
    assert RestartState.read(tmp_path, History()).order is None
