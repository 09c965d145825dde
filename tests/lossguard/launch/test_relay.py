"""The relay as a process of its own, between a test that prints and a test that listens."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lossguard.launch import relay
from lossguard.launch.relay import Backlog
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

NOISE = b"a line of noise without anything in it\n" * 1000


@dataclass
class Relayed:
    """A relay of one output."""

    process: "subprocess.Popen[bytes]"
    printer: int
    """Where the command would print."""
    listener: int
    """Where that arrives."""
    control: socket.socket
    journal: Path

    def steps(self) -> list[int]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [entry["step"] for entry in map(json.loads, lines) if "step" in entry]

    def peak_memory(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10


@contextmanager
def relayed(folder: Path, pattern: str | None = None) -> Iterator[Relayed]:
    (source, printer), (listener, target) = os.pipe(), os.pipe()
    ours, theirs = socket.socketpair()
    journal = folder / "a.journal"
    arguments = relay.arguments_of([(source, 1)], control=theirs.fileno(), journal=str(journal), pattern=pattern)
    command = [sys.executable, "-I", "-S", relay.__file__, *arguments]
    process = subprocess.Popen(
        command, stdout=target, stderr=subprocess.PIPE, pass_fds=(source, theirs.fileno()), bufsize=0
    )
    for each in (source, target):
        os.close(each)
    theirs.close()
    with ours, process:
        assert ours.recv(1) == relay.READY
        yield Relayed(process, printer, listener, ours, journal)
        process.wait(60)
    with suppress(OSError):  # the test has closed it
        os.close(listener)


def put(printer: int, data: bytes) -> None:
    while data:
        data = data[os.write(printer, data) :]


def test_every_byte_is_passed_on_unchanged_and_an_unfinished_line_at_once(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(50_000)
    with relayed(tmp_path) as each:
        put(each.printer, b"Continue? ")
        assert os.read(each.listener, 100) == b"Continue? "
        put(each.printer, data)
        os.close(each.printer)
        passed = b""
        while got := os.read(each.listener, 1 << 16):
            passed += got
    assert passed == data
    assert each.process.returncode == 0


@pytest.mark.system
def test_a_flood_neither_fills_the_memory_nor_hides_rows_that_are_rare(tmp_path: Path) -> None:
    with relayed(tmp_path) as each:
        passed = ThreadPoolExecutor(1).submit(Path(f"/proc/self/fd/{each.listener}").read_bytes)
        for step in range(500):  # 20 MB
            put(each.printer, NOISE + b"iter %d: loss 2.5, time 13.86ms, mfu 26.88%%\n" % step)
            if step % 50 == 0:  # it is read while the flood goes on
                wait_for(lambda: step in each.steps(), seconds=60, what=f"step {step}")  # noqa: B023 - used at once
        assert each.peak_memory() < 64 << 20
        os.close(each.printer)
        assert len(passed.result()) > 500 * len(NOISE)


def test_what_comes_faster_than_it_can_be_read_is_passed_on_and_left_out() -> None:
    backlog = Backlog()
    for _ in range(2 * relay.MAX_BACKLOG // relay.CHUNK):
        backlog.add(0, b"x" * relay.CHUNK)
    taken = []
    while backlog:
        taken.append(backlog.take())
    assert sum(data is None for _, data in filter(None, taken)) == 1
    assert taken[-1] == (0, None)
    assert len(taken) * relay.CHUNK < relay.MAX_BACKLOG + 2 * relay.CHUNK
    backlog.add(0, b"again")
    assert backlog.take() == (0, b"again")


def test_the_command_goes_on_when_reading_fails(tmp_path: Path) -> None:
    with relayed(tmp_path, pattern="step:(") as each:
        put(each.printer, b"iter 3\n")
        assert os.read(each.listener, 100) == b"iter 3\n"
        os.close(each.printer)
        assert each.process.stderr is not None
        assert b"lossguard: what the command prints is no longer read: ConfigurationError" in each.process.stderr.read()


def test_a_pattern_that_never_ends_holds_nothing_up(tmp_path: Path) -> None:
    with relayed(tmp_path, pattern=r"(?P<step>\d+) (?P<loss>(a+)+)b") as each:
        line = b"3 %s\n" % (b"a" * 5000)
        put(each.printer, line)
        assert os.read(each.listener, 10_000) == line
        os.close(each.printer)
    assert each.process.returncode == 0


def test_whoever_prints_learns_that_nobody_listens_any_more(tmp_path: Path) -> None:
    with relayed(tmp_path) as each:
        os.close(each.listener)
        with pytest.raises(BrokenPipeError):
            put(each.printer, NOISE * 100)  # more than the pipes hold
        os.close(each.printer)


def test_after_the_end_of_the_command_the_relay_waits_for_nobody_and_passes_on_what_still_comes(tmp_path: Path) -> None:
    with relayed(tmp_path) as each:
        put(each.printer, b"iter 3: loss 2.5, time 13.86ms, mfu 26.88%\n")
        each.control.send(relay.COMMAND_ENDED)
        assert each.control.recv(1) == relay.DONE
        assert each.steps() == [3]
        os.read(each.listener, 1000)
        put(each.printer, b"iter 4: loss 2.5, time 13.86ms, mfu 26.88%\n")
        assert os.read(each.listener, 1000).startswith(b"iter 4")
        os.close(each.printer)
    assert each.steps() == [3]
