import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.child import Child, CommandNotStarted, Process
from lossguard.launch.hooks import JOURNAL_VARIABLE
from lossguard.launch.launcher import ChildEnd, Launcher, Restart, Supervisor
from lossguard.run.run import Run
from lossguard.vocabulary.states import RunState
from tests.lossguard.launch.launching import LEAVES_BEHIND, SECONDS, Launching, left_behind
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

LOGS = "import trackio; run = trackio.Run()\n"
TRAINS = LOGS + "for step in range(20): run.log({'loss': 2.0 - step / 100}, step=step)\n"
TRAINS_ON = (
    LOGS
    + """
import sys, time
for step in range(100_000):
    run.log({"train/loss": 2.0, "lr": 0.1}, step=step)
    print(step, flush=True)
    time.sleep(0.002)
"""
)


@pytest.mark.parametrize(
    ("code", "asked", "clean", "state"),
    [
        (0, False, False, RunState.FINISHED),
        (3, False, True, RunState.FAILED),
        (-9, False, False, RunState.FAILED),
        (-15, False, False, RunState.INTERRUPTED),
        (0, True, True, RunState.INTERRUPTED),
        (None, False, True, RunState.FINISHED),
        (None, False, False, RunState.FAILED),
    ],
)
def test_the_state_of_a_run_follows_from_how_the_child_ended(
    code: int | None, asked: bool, clean: bool, state: RunState
) -> None:
    assert ChildEnd(code, asked, clean).state is state


def test_the_steps_of_an_unchanged_script_arrive_and_the_run_is_finished(launching: Launching) -> None:
    text = """
from math import inf, nan
for step in range(120):
    run.log({"my/ce": {1: nan, 2: inf}.get(step, 1.5), "train/loss": 9.0}, step=step)
"""
    ended = launching.run(LOGS + text, options=("--run-id", "r", "--tag", "nightly", "--map", "loss=my/ce"))
    assert (ended.code, ended.problems) == (0, "")
    line = f"watching run r, reported to {launching.collector.url}; a rollback needs --restart-with or a guard"
    assert ended.err.count(f"lossguard: {line}\n") == 1
    assert "lossguard: the first 100 rows, steps 0 to 99:" in ended.err
    assert "my/ce               loss" in ended.err
    assert f"They are recorded as run r in {launching.folder / 'lossguard'}" in ended.err
    assert launching.metric("loss") == dict.fromkeys(range(120), 1.5) | {1: "NaN", 2: "Infinity"}
    registered = launching.collector.runs["r"]
    assert (registered["project"], registered["name"]) == ("fake-project", "fake-run")
    assert registered["config"] == {"tags": ["nightly"]}
    assert launching.collector.finished == ["finished"]


def test_a_command_that_does_not_exist_ends_with_127_and_one_sentence(launching: Launching) -> None:
    process = launching.start("no-such-command")
    assert process.communicate(timeout=SECONDS)[1] == "lossguard: no-such-command: there is no such command\n"
    assert process.returncode == 127


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_reaches_the_command_once(launching: Launching, number: int) -> None:
    process = launching.script(
        LOGS
        + """
import signal, sys, time
received = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: received.append(number))
run.log({"loss": 1.0}, step=0)
run.log({"loss": 1.0}, step=1)
while not received:
    time.sleep(0.01)
time.sleep(0.3)
print(received, flush=True)
sys.exit(7)
"""
    )
    launching.wait_for_step(0)
    process.send_signal(number)
    out, _ = process.communicate(timeout=SECONDS)
    assert out == f"[{int(number)}]\n"
    assert process.returncode == 7
    assert launching.collector.finished == ["failed" if number == signal.SIGUSR1 else "interrupted"]


OPTIONS = ("--grace", "0.3", "--run-id", "r")


def leaving_behind(launching: Launching, script: str) -> "subprocess.Popen[str]":
    """A launcher of a command that has started all of its processes."""
    process = launching.script(script, options=OPTIONS)
    wait_for(lambda: len(left_behind(launching.folder)) == 4, seconds=SECONDS, what="the processes of the command")
    return process


@pytest.mark.system
@pytest.mark.parametrize("is_deaf", [False, True])
def test_on_sigterm_nothing_survives_that_the_command_has_started(launching: Launching, is_deaf: bool) -> None:
    listens = "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    process = leaving_behind(launching, LEAVES_BEHIND.replace(listens, "" if is_deaf else listens))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert -process.returncode == (signal.SIGKILL if is_deaf else signal.SIGTERM)
    assert left_behind(launching.folder) == []


@pytest.mark.system
def test_on_sigterm_nothing_survives_of_a_command_that_was_taken_over(launching: Launching) -> None:
    first = leaving_behind(launching, LEAVES_BEHIND.replace("(None, {})", "(None, None)"))
    first.kill()
    first.wait(timeout=SECONDS)
    second = launching.script("", options=OPTIONS)
    assert second.stderr is not None
    assert "is still running" in second.stderr.readline()
    second.send_signal(signal.SIGTERM)
    for each in (second, first):  # what the command had of the outputs of the first one is closed
        each.communicate(timeout=SECONDS)
    assert left_behind(launching.folder) == []


def test_every_step_that_was_logged_before_kill_9_of_the_command_arrives(launching: Launching) -> None:
    process = launching.script(TRAINS_ON + "\n")
    launching.wait_for_step(100)
    os.kill(launching.first_pid(), signal.SIGKILL)
    out, _ = process.communicate(timeout=SECONDS)
    logged = int(out.split()[-1])
    assert process.returncode == -signal.SIGKILL
    losses = launching.metric("loss")
    assert set(losses) >= set(range(logged + 1))
    assert len(losses) <= logged + 2  # the step that was logged, and not printed any more


def test_the_next_launcher_takes_over_the_command_of_a_killed_launcher(launching: Launching) -> None:
    waits = "while step == 1000 and not os.path.exists('go'): time.sleep(0.01)"
    text = TRAINS_ON.replace("100_000", "1500").replace("print(step, flush=True)", waits).replace("sys,", "os,")
    first = launching.script(text, options=("--run-id", "r"))
    launching.wait_for_step(50)
    first.kill()
    first.wait()
    second = launching.script(text, options=("--run-id", "r"))
    assert second.stderr is not None
    assert "which an earlier launcher started, is still running" in second.stderr.readline()
    (launching.folder / "go").touch()
    second.communicate(timeout=SECONDS)
    first.communicate(timeout=SECONDS)
    assert second.returncode == 0
    assert launching.steps() == set(range(1500))
    assert len(launching.collector.segments) == 2
    assert launching.collector.finished == ["finished"]


@pytest.mark.system
def test_another_launcher_of_a_run_that_is_running_is_refused_before_it_starts_the_command(
    launching: Launching,
) -> None:
    first = launching.script(TRAINS_ON, options=("--run-id", "r"))
    launching.wait_for_step(1)
    ended = launching.start("echo", "started", options=("--run-id", "r"), LOSSGUARD_LOCK_WAIT="0")
    out, err = ended.communicate(timeout=SECONDS)
    first.kill()
    os.kill(launching.first_pid(), signal.SIGKILL)
    first.communicate(timeout=SECONDS)
    assert (ended.returncode, out) == (2, "")
    assert "is in use by process" in err


def test_the_command_runs_without_a_collector_and_the_next_launch_of_the_run_delivers_and_resumes(
    launching: Launching,
) -> None:
    (launching.folder / "train.py").write_text(TRAINS)
    main = (
        "import sys; from lossguard.__main__ import main; from lossguard.launch import launcher\n"
        "launcher.DELIVERY_SECONDS = 0.5; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", main, "launch", "--run-id", "r", "--", sys.executable, "train.py"]
    environment = launching.environment(LOSSGUARD_URL="http://127.0.0.1:9")
    ended = subprocess.run(
        command, cwd=launching.folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 0
    assert "no collector answers" in ended.stderr
    launching.run(TRAINS.replace("range(20)", "range(10, 30)"), LOSSGUARD_RUN_ID="r")
    assert [segment["reason"] for segment in launching.collector.segments] == ["start", "resume"]
    assert [list(launching.metric("loss", segment)) for segment in range(2)] == [[*range(20)], [*range(10, 30)]]


def test_the_command_runs_where_nothing_can_be_written(launching: Launching) -> None:
    (launching.folder / "file").write_text("no folder")
    ended = launching.run("print('trained')", LOSSGUARD_DIR=str(launching.folder / "file" / "x"))
    assert (ended.code, ended.out) == (0, "trained\n")
    assert "the command runs without being recorded" in ended.err


def test_the_hooks_leave_a_script_that_reports_itself_alone_and_what_it_left_is_delivered(launching: Launching) -> None:
    ended = launching.run(
        LOGS
        + """
run.log({"loss": 9.0}, step=0)
import lossguard, os
own = lossguard.init("own-project", name="own")
for step in range(200):
    run.log({"loss": 9.0}, step=step)
    own.log(step, loss=1.0)
os.kill(os.getpid(), 9)
""",
        options=("--run-id", "r", "--project", "own-project"),
    )
    assert ended.code == -signal.SIGKILL
    assert "nothing was recorded" not in ended.err
    assert launching.collector.runs["r"]["name"] == "own"
    assert launching.collector.finished[-1] == "failed"
    own = [launching.metric("loss", segment) for segment in range(len(launching.collector.segments))]
    assert own[-1] == dict.fromkeys(range(200), 1.0)


@pytest.mark.parametrize("variable", ["RANK", JOURNAL_VARIABLE])
def test_the_launcher_of_another_rank_or_inside_of_a_launched_command_becomes_the_command(
    launching: Launching, variable: str
) -> None:
    variables: dict[str, Any] = {variable: "1"}
    process = launching.script(TRAINS + "import os; print(os.getpid())", **variables)
    out, _ = process.communicate(timeout=SECONDS)
    assert int(out) == process.pid
    assert launching.collector.runs == {}
    out, _ = launching.start("sh", "-c", "cat /proc/$$/status; true", **variables).communicate()
    ignored = int(dict(line.split(":", 1) for line in out.splitlines())["SigIgn"], 16)
    assert not ignored >> signal.SIGPIPE - 1 & 1  # as Python itself ignores it


@pytest.mark.system
def test_ctrl_c_reaches_the_command_once_and_the_terminal_stays_as_it_was(launching: Launching) -> None:
    """In a terminal of its own, whose line discipline sends SIGINT to the foreground process group."""
    (launching.folder / "train.py").write_text(
        LOGS
        + """
import os, signal, sys, time
received = []
signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
run.log({"loss": 1.0}, step=0)
run.log({"loss": 1.0}, step=1)
print(os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp(), flush=True)
while not received:
    time.sleep(0.01)
time.sleep(0.3)
print("received", received, input(), flush=True)
"""
    )
    command = [sys.executable, "-m", "lossguard", "launch", "--", sys.executable, "train.py"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(launching.folder)
        os.execvpe(command[0], command, launching.environment())
    shown = b""
    for send, answer in ((b"", b"True"), (b"\x03", b"^C"), (b"typed\n", b"received [2] typed")):
        os.write(terminal, send)
        while answer not in shown:
            shown += os.read(terminal, 1000)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_a_process_that_the_script_starts_is_hooked_beside_the_users_own_path_and_sitecustomize(
    launching: Launching,
) -> None:
    """As torchrun starts its workers."""
    (launching.fakes / "sitecustomize.py").write_text("import sys; sys.ran = __name__, __file__")
    worker = TRAINS + "import sys, sitecustomize; print(sys.ran == (sitecustomize.__name__, sitecustomize.__file__))"
    (launching.folder / "worker.py").write_text(worker)
    ended = launching.run("import subprocess, sys; subprocess.run([sys.executable, 'worker.py'], check=True)")
    assert (ended.code, ended.out, ended.problems) == (0, "True\n", "")
    assert len(launching.metric("loss")) == 20


def test_the_exit_code_is_that_of_the_command_when_stdout_and_stderr_are_closed(launching: Launching) -> None:
    launcher = [sys.executable, "-m", "lossguard", "launch", "--project", "p", "--", "sh", "-c", "exit 3"]
    shell = ["sh", "-c", '"$@" >&- 2>&-', "sh", *launcher]
    assert subprocess.run(shell, cwd=launching.folder, env=launching.environment(), check=False).returncode == 3


class FakeRecorder:
    recorded = ended = None
    state: RunState | None = None

    def __init__(self) -> None:
        self.followed: list[Path] = []
        self.left: list[Path] = []

    def begin_at_once(self) -> Run | None:
        return None

    def follow(self, journal: Path, *, opens_segment: bool = True, is_left: bool = True) -> None:
        self.followed.append(journal)
        self.left += [journal] * is_left

    def start(self) -> None: ...
    def drain(self) -> bool:
        return True

    def close(self, state: RunState, timeout: float) -> None:
        self.state = state


class FailingSupervisor(Supervisor):
    """Of a command that stops itself: it does not end before this has looked."""

    def watch(self, child: Child, run: Run | None) -> None:
        child.send(signal.SIGCONT)
        raise ValueError("a checkpoint is not what it seems")


class GoneCommand(Supervisor):
    def after(self, end: ChildEnd, run: Run | None) -> Restart | None:
        return Restart(command=["/nonexistent/command"])


def launcher(folder: Path, supervisor: Supervisor, script: str) -> tuple[Launcher, FakeRecorder]:
    recorder: Any = FakeRecorder()
    command = ["sh", "-c", script]
    return Launcher(command, folder=folder, recorder=recorder, environment={}, supervisor=supervisor), recorder


def test_a_command_runs_on_to_its_end_when_its_supervisor_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launching, _ = launcher(tmp_path, FailingSupervisor(), "kill -STOP $$; exit 3")
    assert launching.run().code == 3
    assert caplog.messages == ["the command is not supervised: ValueError: a checkpoint is not what it seems"]


def test_what_a_killed_launcher_had_not_recorded_is_recorded_by_the_next_one_first(tmp_path: Path) -> None:
    left = tmp_path / "0.journal"
    left.touch()
    launching, recorder = launcher(tmp_path, Supervisor(), "exit 0")
    assert launching.run().state is RunState.FINISHED
    assert (recorder.followed[0], len(recorder.followed), recorder.left) == (left, 2, [left])


def test_ctrl_c_is_passed_on_to_a_command_that_was_taken_over_in_another_process_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal sends SIGINT to the launcher's group alone."""
    script = "import signal; signal.signal(2, lambda *_: exit(3)); open('ready', 'w'); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, process_group=0) as process:
        started = Process.of(process.pid).started
        Child(process.pid, started, command=[], journal=tmp_path / "0.journal").note(tmp_path)
        wait, of_terminal = signal.sigtimedwait, signal.struct_siginfo((signal.SIGINT, 128, 0, 0, 0, 0, 0))
        waited: list[float] = []  # since the terminal has sent the signal

        def terminal(signals: Any, seconds: float) -> Any:
            if not waited and (tmp_path / "ready").exists():
                waited.append(0.0)
                return of_terminal
            waited.extend([seconds] * bool(waited))
            if sum(waited) > SECONDS:  # it was not passed on
                process.kill()
            return wait(signals, seconds)

        monkeypatch.setattr("signal.sigtimedwait", terminal)
        launching, _ = launcher(tmp_path, Supervisor(), "exit 0")
        assert launching.run().asked_to_stop
    assert process.returncode == 3


def test_a_command_that_is_gone_at_its_restart_leaves_a_failed_run(tmp_path: Path) -> None:
    launching, recorder = launcher(tmp_path, GoneCommand(), "exit 3")
    with pytest.raises(CommandNotStarted, match="there is no such command"):
        launching.run()
    assert recorder.state is RunState.FAILED


class ContinuingSupervisor(Supervisor):
    """Of a command that stops itself."""

    def watch(self, child: Child, run: Run | None) -> None:
        child.send(signal.SIGCONT)


class NotingSupervisor(Supervisor):
    """Notes what it is called for after SIGTERM, which the command sends to its launcher and handles itself."""

    def __init__(self, folder: Path, *, is_stopping: bool) -> None:
        self.folder, self._is_stopping, self.num_looks = folder, is_stopping, 0

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def watch(self, child: Child, run: Run | None) -> None:
        (self.folder / "looked").touch()
        if (self.folder / "asked").exists():
            self.num_looks += 1
            (self.folder / "looked-again").touch()


@pytest.mark.parametrize("is_stopping", [False, True])
def test_a_command_that_was_asked_to_stop_is_left_to_its_last_checkpoint(tmp_path: Path, is_stopping: bool) -> None:
    """It is not taken for a command that hangs. A stop that has begun before goes on."""
    supervisor = NotingSupervisor(tmp_path, is_stopping=is_stopping)
    saves = "until [ -e looked-again ]; do sleep 0.01; done" if is_stopping else "sleep 0.5"
    script = f"""cd {tmp_path}
trap 'touch asked; {saves}; exit 3' TERM
until [ -e looked ]; do sleep 0.01; done
kill $PPID
while :; do sleep 0.01; done"""
    end = launcher(tmp_path, supervisor, script)[0].run()
    assert (end.code, end.asked_to_stop) == (3, True)
    assert (supervisor.num_looks > 0) == is_stopping


def test_a_signal_that_is_ignored_as_under_nohup_does_not_ask_the_run_to_stop(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launching, _ = launcher(tmp_path, ContinuingSupervisor(), "kill -HUP $PPID; kill -STOP $$; exit 0")
        end = launching.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (end.code, end.state) == (0, RunState.FINISHED)
