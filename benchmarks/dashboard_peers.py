"""TensorBoard and trackio with the same run in the same browser: time to the first chart, and the spikes that it shows.

The run is imported as an event file and by `trackio.import_csv`. Before the measurement the server has read all of it
and the browser has cached the page. The clock stops when the values of the loss have reached the browser: no chart can
be drawn earlier. A spike counts as shown if its value is among them.
"""

import csv
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, Response, ViewportSize
from playwright.sync_api import Error as PageError

from benchmarks.peers import python_with
from benchmarks.rows import Row
from tests.ports import free_port

SIZE: ViewportSize = {"width": 1440, "height": 900}
NUM_VISITS = 3
IMPORT_SECONDS = 600.0
"""A server must have read the run within this time."""

TO_EVENTS = """
import csv, sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(sys.argv[2])
for row in csv.DictReader(open(sys.argv[1])):
    value = Summary.Value(tag="loss", simple_value=float(row["loss"]))
    step = int(row["step"])
    writer.add_event(Event(wall_time=1.8e9 + step, step=step, summary=Summary(value=[value])))
writer.close()
"""
TO_TRACKIO = """
import sys, trackio
trackio.import_csv(sys.argv[1], project="run", name="run")
"""
SHOW_TRACKIO = """
import sys, trackio
trackio.show("run", open_browser=False, block_thread=True, host="127.0.0.1", server_port=int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    page: str
    loss_values: Callable[[Response], list[float] | None]
    """The values of the loss in an answer of the server; None for other answers."""


def _tensorboard_loss(answer: Response) -> list[float] | None:
    if not answer.url.endswith("/timeSeries"):
        return None
    for each in answer.json():
        if each.get("tag") == "loss" and each.get("runToSeries"):
            return [point["value"] for series in each["runToSeries"].values() for point in series]
    return None


def _trackio_loss(answer: Response) -> list[float] | None:
    if not answer.url.endswith("/get_logs_batch"):
        return None
    values = [row["loss"] for run in answer.json()["data"] for row in run["logs"] if "loss" in row]
    return values or None


def measure(browser: Browser, losses: Sequence[float], height: float) -> Iterator[Row]:
    """`losses` are those of steps 0, 1, ..; `height` is that of an injected spike."""
    with tempfile.TemporaryDirectory() as name, python_with("tensorboard", "trackio") as python:
        folder = Path(name)
        curve = folder / "run.csv"
        with curve.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("step", "loss"))
            writer.writerows(enumerate(losses))
        environment = os.environ | {"HOME": name, "TRACKIO_DIR": f"{name}/trackio"}
        for peer, fill, serve in _peers(python, folder, curve):
            subprocess.run([python, *fill], env=environment, cwd=folder, check=True, capture_output=True)
            with _served(python, serve, environment, folder):
                yield _row(peer, browser, losses, height)


def _peers(python: Path, folder: Path, curve: Path) -> Iterator[tuple[Peer, Sequence[str], Sequence[str]]]:
    """Each peer with the Python arguments that import the run and that start its server."""
    port = str(free_port())
    fill = ("-c", TO_EVENTS, str(curve), str(folder / "events/run"))
    serve = ("-m", "tensorboard.main", "--logdir", str(folder / "events"), "--host", "127.0.0.1", "--port", port)
    yield Peer("TensorBoard", f"http://127.0.0.1:{port}/#timeseries", _tensorboard_loss), fill, serve
    port = str(free_port())
    peer = Peer("trackio", f"http://127.0.0.1:{port}/?project=run", _trackio_loss)
    yield peer, ("-c", TO_TRACKIO, str(curve)), ("-c", SHOW_TRACKIO, port)


@contextmanager
def _served(python: Path, serve: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([python, *serve], env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _row(peer: Peer, browser: Browser, losses: Sequence[float], height: float) -> Row:
    with closing(browser.new_context(viewport=SIZE)) as context:
        values = _settled(context.new_page, peer, losses[-1])
        took = []
        for _ in range(NUM_VISITS):
            with closing(context.new_page()) as page:
                took.append(_visit(page, peer)[1])
    shown = sum(value >= 0.99 * height for value in values)
    comparison = f"{len(values):,} points, {shown} of 20 injected spikes among them; load {os.getloadavg()[0]:.1f}"
    return Row(
        f"{peer.name}, {len(losses):,} steps: navigation to the values in the browser",
        1000 * statistics.median(took),
        "ms",
        None,
        comparison,
    )


def _settled(new_page: Callable[[], Page], peer: Peer, last: float) -> list[float]:
    """Wait until the values end with the run's last one, when the server has read the run; the values."""
    deadline = time.monotonic() + IMPORT_SECONDS
    while time.monotonic() < deadline:
        with suppress(PageError), closing(new_page()) as page:
            values, _ = _visit(page, peer)
            if np.isclose(values[-1], last):
                return values
        time.sleep(5)
    raise TimeoutError(f"{peer.name} did not show the run in {IMPORT_SECONDS:.0f} s")


def _visit(page: Page, peer: Peer) -> tuple[list[float], float]:
    """The values, and the seconds from the navigation until they arrived."""
    found: list[tuple[list[float], float]] = []
    began = time.perf_counter()

    def look(answer: Response) -> None:
        with suppress(PageError):  # an answer without a body
            answer.finished()
            arrived = time.perf_counter() - began
            values = peer.loss_values(answer)
            if values is not None:
                found.append((values, arrived))

    page.on("response", look)
    page.goto(peer.page, wait_until="commit", timeout=1000 * IMPORT_SECONDS)
    while not found and time.perf_counter() - began < IMPORT_SECONDS / 4:
        page.wait_for_timeout(20)
    if not found:
        raise PageError(f"{peer.name} sent no values")
    return found[0]
