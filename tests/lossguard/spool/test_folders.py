import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lossguard import ConfigurationError
from lossguard.spool.folders import LOCK_FILE, lock_folder, make_folder, open_private, paths_below
from lossguard.spool.writer import this_process


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_folders_that_are_missing_are_made_for_their_owner_and_others_stay_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert [mode(tmp_path / path) for path in (".", "a", "a/b")] == ["0o755", "0o700", "0o700"]


def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_private(str(tmp_path / "file"), os.O_WRONLY | os.O_CREAT))
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == "0o600"


def test_a_folder_that_vanishes_while_files_are_looked_for_is_passed_over(tmp_path: Path) -> None:
    files = [tmp_path / "1.spool", tmp_path / "gone" / "2.spool", tmp_path / "kept" / "deep" / "3.spool"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    found = paths_below(tmp_path, "*.spool")
    assert next(found) == files[0]
    shutil.rmtree(tmp_path / "gone")
    assert list(found) == files[2:]


HOLD = """
import sys, time
from pathlib import Path
from lossguard.spool.folders import lock_folder
{before}
lock_folder(Path(sys.argv[1]), wait=0.0, remedy="")
{after}
print("locked", flush=True)
time.sleep(600)
"""


@contextmanager
def another_process(folder: Path, *, before: str = "", after: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `folder`."""
    script = HOLD.format(before=before, after=after)
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def lock(folder: Path, wait: float = 0.0) -> Any:
    return lock_folder(folder, wait=wait, remedy="stop it")


def is_free(folder: Path) -> bool:
    """As another open file of the lock sees it, which is as another process."""
    with (folder / LOCK_FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_whatever_locks_a_folder_in_one_process_shares_the_lock(tmp_path: Path) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    assert first is second
    first.release()
    assert not is_free(tmp_path)
    second.release()
    assert is_free(tmp_path)


@pytest.mark.slow
def test_a_second_process_waits_and_then_names_the_first_and_what_to_do(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        began = time.monotonic()
        with pytest.raises(ConfigurationError) as refused:
            lock(tmp_path, 0.5)
        assert time.monotonic() - began >= 0.5
        sentence = str(refused.value)
        assert sentence.startswith(f"{tmp_path} is in use by process {process.pid} on {this_process().split('@')[1]}")
        assert sentence.endswith("did not end within 0.5 s (LOSSGUARD_LOCK_WAIT): stop it")
        process.kill()
        process.wait()
        lock(tmp_path, 60.0).release()


@pytest.mark.slow
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    """A DataLoader worker may outlive a trainer that was killed."""
    fork = "import os\nif os.fork() == 0:\n    os.close(1)\n    print = lambda *a, **k: None\n    time.sleep(600)"
    with another_process(tmp_path, after=fork) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        try:
            process.kill()
            process.wait()
            lock(tmp_path, 60.0).release()
            os.kill(int(children[0]), 0)  # it still lives
        finally:
            os.kill(int(children[0]), signal.SIGKILL)


@pytest.mark.slow
def test_the_end_of_a_forked_child_does_not_unlock_the_folder_of_its_parent(tmp_path: Path) -> None:
    held = lock(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    assert not is_free(tmp_path)
    held.release()


def test_a_file_system_without_locks_is_reported_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for _ in range(2):
        lock(tmp_path).release()
    assert caplog.text.count("cannot be locked (No locks available)") == 1


def test_a_lock_file_that_says_nothing_is_another_process(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="is in use by another process"):
            lock(tmp_path)
