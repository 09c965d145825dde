"""How fast files of other tools come in: from a line in a file to its incident, and an import beside tbparse.

    python -m benchmarks.intake [--steps 1000000] [--times 10] [--peers]

--peers also measures tbparse, which is installed into an environment of its own. Both read the same file, one after the
other.
"""

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.collectors import collector
from benchmarks.peers import python_with
from benchmarks.rows import Row, print_rows
from lossguard import Client, CollectorError
from lossguard.sources.readers import event_files
from tests.waiting import wait_for

NUM_QUIET = 200
"""Rows before the NaN."""
TARGET_SECONDS = 2.0
TBPARSE = "import sys, tbparse; print(len(tbparse.SummaryReader(sys.argv[1]).scalars))"


def measure(steps: int, times: int, *, peers: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name, collector(f"sqlite:///{name}/bench.db") as (url, _):
        folder = Path(name)
        for what, write in (("text log", write_log), ("event file", write_events)):
            seconds = sorted(latency(folder / f"{what}-{number}", url, write, number) for number in range(times))
            median = statistics.median(seconds)
            comparison = f"slowest of {times}: {seconds[-1]:.2f} s"
            yield Row(f"a NaN in a watched {what} to its incident, median", median, "s", TARGET_SECONDS, comparison)
        yield from imports(folder, url, steps, peers=peers)


Write = Callable[[Path, range, random.Random, bool], None]
"""Appends rows of these steps to the run in a folder; the last one is NaN if that is asked."""


def write_log(folder: Path, steps: range, noise: random.Random, is_nan: bool) -> None:
    with (folder / "train.log").open("a") as file:
        for step in steps:
            loss = "nan" if is_nan else f"{3 + noise.gauss(0, 0.02):.4f}"
            file.write(f"iter {step}: loss {loss}, time 13.86ms, mfu 26.88%\n")


def write_events(folder: Path, steps: range, noise: random.Random, is_nan: bool) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (folder / "events.out.tfevents.1700000000.host.1.0").open("ab") as file:
        writer = RecordWriter(file)
        for step in steps:
            loss = float("nan") if is_nan else 3 + noise.gauss(0, 0.02)
            summary = Summary(value=[Summary.Value(tag="train/loss", simple_value=loss)])
            writer.write(Event(wall_time=1.7e9 + step, step=step, summary=summary).SerializeToString())


def latency(folder: Path, url: str, write: Write, number: int) -> float:
    """Seconds from a NaN in the file until the collector shows its incident."""
    noise, run = random.Random(number), f"{folder.name.replace(' ', '-')}"
    folder.mkdir()
    write(folder, range(NUM_QUIET), noise, False)
    command = ["watch", str(folder), "--run-id", run, "--url", url, "--directory", str(folder / "spools")]
    watcher = start(*command)
    with Client(url) as client:
        wait_for(lambda: last_step(client, run) == NUM_QUIET - 1, seconds=60, what="the quiet rows")
        time.sleep(1.0 + noise.random())  # a random moment between two looks
        write(folder, range(NUM_QUIET, NUM_QUIET + 1), noise, True)
        began = time.perf_counter()
        while not client.get(f"/runs/{run}/incidents"):
            time.sleep(0.005)
        seconds = time.perf_counter() - began
    watcher.send_signal(signal.SIGINT)
    watcher.wait(30)
    return seconds


def last_step(client: Client, run: str) -> int | None:
    try:
        segments = client.get(f"/runs/{run}")["segments"]
    except CollectorError:  # not registered yet
        return None
    return segments[-1]["last_step"] if segments else None


def imports(folder: Path, url: str, steps: int, *, peers: bool) -> Iterator[Row]:
    source, spools = folder / "big", str(folder / "spools")
    source.mkdir()
    write_events(source, range(steps), random.Random(0), False)
    (run,) = event_files.runs_in(source)
    reading = timed(lambda: sum(1 for _ in run.rows()))
    beside = ""
    if peers:
        with python_with("tbparse==0.0.9", "tensorboard") as python:
            peer = timed(lambda: subprocess.run([python, "-c", TBPARSE, str(source)], check=True, capture_output=True))
        beside = f"; tbparse on the same file: {steps / peer:,.0f} steps/s, {peer:.1f} s"
    yield Row(
        f"reading {steps:,} steps of an event file", reading, "s", None, f"{steps / reading:,.0f} steps/s{beside}"
    )
    recording = timed(lambda: finished("import", str(source), "--offline", "--directory", spools))
    yield Row("importing them into a spool", recording, "s", None, f"{steps / recording:,.0f} steps/s")
    again = timed(lambda: finished("import", str(source), "--offline", "--directory", spools))
    yield Row("importing them again: nothing new", again, "s", None, f"{steps / again:,.0f} steps/s")
    delivery = timed(lambda: finished("sync", spools, "--url", url))
    yield Row("delivering them, with detection", delivery, "s", None, f"{steps / delivery:,.0f} steps/s")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def start(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "lossguard", *command], stdout=subprocess.DEVNULL)


def finished(*command: str) -> None:
    process = start(*command)
    assert process.wait() == 0, command


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake")
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps of the imported run")
    parser.add_argument("--times", type=int, default=10, help="number of runs in which a NaN is written")
    parser.add_argument("--peers", action="store_true", help="also measure tbparse")
    options = parser.parse_args()
    print_rows(measure(options.steps, options.times, peers=options.peers))
