import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.child import CHILD_FILE, Child, CommandNotStarted, Stop, descendants, end_all, kill_all, zombies
from tests.lossguard.launch.launching import ROOT, exit_code
from tests.waiting import wait_for


def start(folder: Path, *command: str) -> Child:
    return Child.start(command, dict(os.environ), folder / "x.journal")


def noted(folder: Path) -> Child:
    child = start(folder, "sleep", "60")
    child.note(folder)
    return child


def test_a_child_that_another_launcher_left_behind_is_found_again(tmp_path: Path) -> None:
    child = noted(tmp_path)
    found = Child.find(tmp_path)
    assert found is not None
    assert found == replace(child, is_ours=False)
    found.send(signal.SIGTERM)
    assert exit_code(child) == -signal.SIGTERM
    assert Child.find(tmp_path) is None


@pytest.mark.parametrize("changed", [{"started": "1"}, {"host": "elsewhere"}, {"pid": "none"}, {"journal": None}])
def test_another_process_is_not_taken_for_the_child(tmp_path: Path, changed: dict[str, Any]) -> None:
    child = noted(tmp_path)
    note = tmp_path / CHILD_FILE
    note.write_text(json.dumps(json.loads(note.read_text()) | changed))
    assert Child.find(tmp_path) is None
    child.send(signal.SIGKILL)
    exit_code(child)


def test_the_child_has_the_signals_that_the_launcher_blocks(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        child = Child.start(["sleep", "60"], dict(os.environ), tmp_path / "x.journal", mask=before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
    child.send(signal.SIGTERM)
    assert exit_code(child) == -signal.SIGTERM
    assert int(status["SigBlk"], 16) == 0
    assert not int(status["SigIgn"], 16) >> signal.SIGPIPE - 1 & 1  # as Python itself ignores it


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("no-such-command", 127, "no-such-command: there is no such command"),
        ("/etc/passwd", 126, r"/etc/passwd cannot be executed \(Permission denied\)"),
        ("/", 126, r"/ cannot be executed \(Permission denied\)"),
        ("a\0b", 126, "embedded null byte"),
    ],
)
def test_a_command_that_cannot_be_started_has_the_exit_code_of_a_shell(
    tmp_path: Path, command: str, code: int, sentence: str
) -> None:
    with pytest.raises(CommandNotStarted, match=sentence) as caught:
        start(tmp_path, command)
    assert caught.value.code == code


NESTED = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.slow
def test_processes_below_another_one_are_found_in_any_session_and_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", NESTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        below = int(process.stdout.readline())
        found = descendants(os.getpid())
        pids = [each.pid for each in found]
        assert pids.index(process.pid) < pids.index(below)
        ours = [each for each in found if each.pid in (process.pid, below)]
        assert all(each.lives() for each in ours)
        kill_all(ours)
        wait_for(lambda: not any(each.lives() for each in ours), seconds=60, what="both have ended")


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w'); time.sleep(60)"


def start_python(folder: Path, code: str) -> Child:
    code = f"import os; os.chdir({str(folder)!r}); {code}"
    return Child.start([sys.executable, "-c", code], os.environ, folder / "journal")


@pytest.mark.slow
def test_a_command_is_asked_first_and_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    child = start_python(tmp_path, DEAF)
    wait_for((tmp_path / "deaf").exists, seconds=60, what="that it ignores SIGTERM")
    stop = Stop(child, 100.0, grace=10.0)
    stop.advance(109.0)
    assert child.lives()
    assert child.ignores(signal.SIGTERM)
    assert not child.ignores(signal.SIGUSR1)
    stop.advance(110.0)
    wait_for(lambda: child.pid in {each.pid for each in zombies()}, seconds=60, what="its end")
    assert exit_code(child) == -signal.SIGKILL
    assert child.pid not in {each.pid for each in zombies()}
    assert not child.lives()
    child.send(signal.SIGTERM)  # reaches nobody


@pytest.mark.slow
def test_what_the_command_leaves_behind_is_ended_in_whatever_session_it_is(tmp_path: Path) -> None:
    """In a process of its own, which adopts orphans: this one must not."""
    code = f"""
import os, sys
from pathlib import Path
from lossguard.launch.child import Child, adopting_orphans, end_all
from tests.lossguard.launch.launching import ROOT, exit_code
from tests.lossguard.launch.launching import LEAVES_BEHIND, left_behind
from tests.waiting import wait_for
folder = Path({str(tmp_path)!r})
os.chdir(folder)
other = Child.start(["sleep", "600"], os.environ, folder / "elsewhere" / "x.journal")
with adopting_orphans():
    child = Child.start([sys.executable, "-c", LEAVES_BEHIND], os.environ, folder / "x.journal")
    wait_for(lambda: len(left_behind(folder)) == 4, seconds=60, what="the processes of the command")
    assert len(child.processes()) == 4, child.processes()
    child.send(15)
    exit_code(child)
    end_all(child, grace=0.2)
    print(left_behind(folder), child.processes(), other.lives())
other.send(9)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("[] [] True\n", "")


@pytest.mark.slow
def test_a_process_that_ends_by_sigterm_is_not_killed_and_a_second_signal_ends_the_grace(tmp_path: Path) -> None:
    polite = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (open('asked', 'w'), sys.exit()))"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    for begin, is_urgent in ((polite, False), (deaf, True)):
        below = f"{begin}; import time; open('ready', 'w'); time.sleep(600)"
        child = start_python(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}])")
        wait_for((tmp_path / "ready").exists, seconds=60, what="the process below")
        (tmp_path / "ready").unlink()
        left = child.processes()
        child.send(signal.SIGSTOP)  # it is there and does nothing: its children stay its own
        end_all(child, grace=600.0, is_urgent=lambda is_urgent=is_urgent: is_urgent)  # type: ignore[misc]
        assert not any(each.lives() for each in left)
        child.send(signal.SIGKILL)
        exit_code(child)
    assert (tmp_path / "asked").exists()
