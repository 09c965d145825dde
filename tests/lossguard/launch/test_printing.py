"""Commands whose printed lines are recorded: real processes of `lossguard launch`."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lossguard.__main__ import main
from lossguard.launch.printing import Printing
from tests.lossguard.launch.launching import SECONDS, Launching
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

PRINTS = """
for step in range(20):
    print(f"iter {step}: loss {2 - step / 100:.4f}, time 13.86ms, mfu 26.88%")
"""
LOGS = "import trackio; trackio.Run().log({'loss': 1.0}, step=0)\n"
LOSSES = {step: round(2 - step / 100, 4) for step in range(20)}
PRINTS_ON = """
import os, sys, time
step = 0
while not os.path.exists("stop"):
    print(f"iter {step}: loss 2.5, time 13.86ms, mfu 26.88%", flush=True)
    step += 1
    time.sleep(0.01)
sys.exit(step % 100 + 1)
"""


def test_a_script_that_only_prints_is_recorded_and_what_it_prints_is_unchanged(launching: Launching) -> None:
    ended = launching.run(PRINTS + "raise SystemExit(3)", options=("--run-id", "r"))
    assert ended.code == 3
    lines = [f"iter {step}: loss {2 - step / 100:.4f}, time 13.86ms, mfu 26.88%\n" for step in range(20)]
    assert ended.out == "".join(lines)
    assert ended.problems == "lossguard: the command prints lines of nanoGPT: they are recorded\n"
    assert launching.metric("loss") == LOSSES
    assert launching.collector.runs["r"]["config"] == {"trainer": "nanoGPT"}
    assert launching.collector.finished == ["failed"]


def test_lines_of_a_pattern_arrive_while_the_command_runs_and_its_tracker_is_left_out(launching: Launching) -> None:
    own = ("--pattern", r"iter (?P<step>\d+): loss (?P<err>\S+)", "--map", "loss=err")
    process = launching.script(LOGS + PRINTS_ON, options=own)
    launching.wait_for_step(5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGTERM
    assert launching.collector.finished == ["interrupted"]
    assert launching.metric("loss")[0] == 2.5


def test_with_no_text_nothing_printed_is_recorded_and_the_launcher_says_so(launching: Launching) -> None:
    ended = launching.run(PRINTS, options=("--no-text",))
    assert (ended.code, launching.collector.runs) == (0, {})
    assert ended.problems.startswith("lossguard: nothing was recorded: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--pattern", "step:("), "--pattern 'step:(' is no regular expression: missing )"),
        (("--pattern", "(?P<step>.)(?P<loss>.)", "--no-text"), "--pattern reads what the command prints"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_said_before_the_command_starts(
    options: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *options, "--", "echo", "started"]) == 2
    shown = capfd.readouterr()
    assert (shown.out, shown.err.startswith(f"lossguard: {sentence}")) == ("", True)


def test_both_outputs_keep_their_order_where_they_go_to_one_place(launching: Launching) -> None:
    shell = "for i in $(seq 200); do echo out $i; echo err $i >&2; done"
    launcher = [sys.executable, "-m", "lossguard", "launch", "--", "sh", "-c", shell]
    both: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = launching.environment()
    done = subprocess.run(launcher, cwd=launching.folder, env=environment, text=True, check=True, **both)
    printed = [line for line in done.stdout.splitlines() if not line.startswith("lossguard: ")]
    assert printed == [f"{name} {number}" for number in range(1, 201) for name in ("out", "err")]


def in_terminal(launching: Launching, *command: str) -> bytes:
    """What a terminal shows of a command, to its end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(launching.folder)
        os.execvpe(command[0], command, launching.environment())
    shown = b""
    try:
        while data := os.read(terminal, 1 << 16):
            shown += data
    except OSError:  # closed at the other end
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    return shown


def test_in_a_terminal_the_command_has_a_terminal_and_every_byte_is_as_without_a_launcher(launching: Launching) -> None:
    (launching.folder / "train.py").write_text(
        """
import os, sys
print([os.isatty(number) for number in range(3)], os.get_terminal_size(1), os.tcgetpgrp(0) == os.getpgrp())
sys.stderr.write("\\x1b[31mred\\x1b[0m\\n")
sys.stdout.write("50%\\r100%\\r\\n")
sys.stdout.flush()
os.write(1, bytes(range(256)))
sys.exit(5)
"""
    )
    plain = in_terminal(launching, sys.executable, "train.py")
    launched = in_terminal(launching, sys.executable, "-m", "lossguard", "launch", "--", sys.executable, "train.py")
    assert plain.startswith(b"[True, True, True]")
    assert re.sub(rb"lossguard: [^\n]*\n", b"", launched) == plain


@pytest.mark.system
def test_kill_9_of_the_launcher_neither_ends_the_command_nor_loses_a_line(launching: Launching) -> None:
    first = launching.script(PRINTS_ON, options=("--run-id", "r", "--text"))
    launching.wait_for_step(20)
    pid = launching.first_pid()
    first.kill()
    first.wait()
    second = launching.script(PRINTS_ON, options=("--run-id", "r", "--text"))
    assert second.stderr is not None
    assert f"process {pid}, which an earlier launcher started" in second.stderr.readline()
    (launching.folder / "stop").touch()
    second.communicate(timeout=SECONDS)
    out, _ = first.communicate(timeout=SECONDS)
    assert len(out.splitlines()) > 20
    assert launching.steps() == set(range(len(out.splitlines())))
    assert (second.returncode, launching.collector.finished) == (0, ["finished"])


@pytest.mark.system
def test_a_process_that_outlives_the_command_does_not_hold_the_launcher_and_may_print(launching: Launching) -> None:
    shell = "(while ! [ -e stop ]; do sleep 0.01; done; echo late) & echo done"
    process = launching.start("sh", "-c", shell)
    wait_for(lambda: process.poll() is not None, seconds=SECONDS, what="the end of the launcher")
    (launching.folder / "stop").touch()
    assert process.stdout is not None
    assert process.stdout.read() == "done\nlate\n"
    process.communicate(timeout=SECONDS)


def test_without_a_relay_the_command_has_the_outputs_of_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    opened = os.listdir("/proc/self/fd")
    assert Printing.begin(tmp_path / "a.journal", None) is None
    assert "what the command prints is not read: /bin/false cannot run " in caplog.text
    assert os.listdir("/proc/self/fd") == opened
