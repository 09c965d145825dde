import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.hooks import journal as journal_module
from lossguard.launch.hooks.journal import Journal, warn_once
from lossguard.run import process_rank

Entries = Callable[[], list[dict[str, Any]]]
WITHOUT_LOSSGUARD = f"""
import sys
sys.path.insert(0, {str(Path(journal_module.__file__).parent)!r})
import journal
print(journal.rank_of({{"SLURM_PROCID": "7"}}), [name for name in sys.modules if name.startswith("lossguard")])
"""


@pytest.mark.slow
def test_the_hooks_have_the_rule_of_init_and_need_no_lossguard_in_the_interpreter_of_the_command() -> None:
    assert journal_module.rank_of.__code__ == process_rank.rank_of.__code__
    command = [sys.executable, "-I", "-S", "-c", WITHOUT_LOSSGUARD]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "7 []\n"


def test_a_message_is_printed_once_and_a_closed_stderr_is_no_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        warn_once("a hook is missing")
    assert capsys.readouterr().err == "lossguard: a hook is missing\n"
    monkeypatch.setattr("sys.stderr", None)
    warn_once("nobody reads this")


def test_each_entry_is_in_the_file_when_the_call_returns(journal: Journal, entries: Entries) -> None:
    journal.write({"step": 1, "values": {"loss": math.inf, "lr": 0.1}})
    assert entries() == [{"step": 1, "values": {"loss": math.inf, "lr": 0.1}}]


def test_the_journal_of_another_process_is_left_alone(
    journal: Journal, entries: Entries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write({"step": 1})
    other = Journal(str(tmp_path / "child.journal"))
    for _ in range(3):
        other.write({"step": 2})
    assert entries() == [{"step": 1}]
    assert not other.is_written
    assert capsys.readouterr().err.count("another process of this command did so first") == 1


def test_a_forked_child_neither_writes_nor_keeps_the_lock(journal: Journal, entries: Entries, tmp_path: Path) -> None:
    journal.write({"step": 1})
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)  # until the parent has closed the journal
        journal.write({"step": 3})
        os._exit(0 if journal.is_written else 1)
    journal.close()
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # it is the only process then
    assert [entry.get("step") for entry in entries()] == [1, None, 3]


def test_a_fork_while_another_thread_writes_the_backlog_keeps_neither_lock_nor_file(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write({"step": 1})
    answers = iter([OSError(errno.ENOSPC, "No space left on device")] * 2)
    exit_codes = []

    def write(fd: int, data: bytes) -> int:
        for problem in answers:
            raise problem
        if (pid := os.fork()) == 0:
            os._exit(0 if journal._fd is None else 1)
        exit_codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    journal.write({"step": 2})  # waits in memory
    journal.write({"step": 3})
    assert exit_codes == [0]


def test_another_owner_continues_behind_a_line_that_was_cut_off(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "child.journal"
    path.write_bytes(b'{"step":1}\n{"st')
    journal.write({"step": 2})
    assert path.read_bytes() == b'{"step":1}\n{"st\n{"step":2}\n'


def test_another_rank_writes_nothing(journal: Journal, entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    journal.write({"step": 1})
    assert entries() == []


def full(fd: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_said_once_and_the_lines_wait(
    journal: Journal, entries: Entries, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write({"step": 0})
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for step in (1, 2):
            journal.write({"step": step})
    journal.write({"step": 3})
    assert [entry["step"] for entry in entries()] == [0, 1, 2, 3]
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_lines_that_are_lost_at_the_end_are_counted(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write({"step": 0})
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        journal.write({"step": 1})
        journal.close()
    assert "the lines in memory are lost (2)" in capsys.readouterr().err


def test_a_script_that_reports_itself_ends_the_journal(journal: Journal, entries: Entries) -> None:
    journal.write({"step": 0})
    journal.leave_to_script()
    journal.write({"step": 1})
    assert entries() == [{"step": 0}, {"script_reports": os.getpid()}]
