"""Checkpoints at a URL beside those on the local disk: how long the loop waits, until they are durable, and a load.

    python -m benchmarks.remote_checkpoint

The state of `benchmarks.checkpoint`, saved in turns on the disk, in an S3-compatible server on loopback (moto, which is
Python and shares the cores) and in fsspec's memory. The last row is the loop's wait while each upload lasts longer than
the interval between two checkpoints: the guard leaves those out that are due.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.checkpoint import NUM_LAYERS, WIDTH
from benchmarks.rows import Row, print_rows
from lossguard import Guard, Run
from lossguard.torch import Checkpoints
from tests import object_store

NUM_SAVES, NUM_LOADS = 7, 3
STEP_SECONDS, EVERY, NUM_STEPS = 0.05, 10, 60
"""Of the loop in the last row."""
PLACES = ("disk", "S3", "memory")


def measure() -> list[Row]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, object_store.running() as server:
        os.environ |= server.environment
        bucket = server.create_bucket("benchmark")
        urls = {"disk": f"{folder}/disk", "S3": f"{bucket}/run", "memory": "memory://benchmark"}
        stores = {name: _checkpoints(url, Path(folder)) for name, url in urls.items()}
        saves: dict[str, list[float]] = {name: [] for name in PLACES}
        durable: dict[str, list[float]] = {name: [] for name in PLACES}
        for number in range(NUM_SAVES):
            for name, store in stores.items():
                began = time.perf_counter()
                saves[name].append(_seconds(partial(store.save, number, {"step": number})))
                store.settle(wait=True)
                durable[name].append(time.perf_counter() - began)
        newest = NUM_SAVES - 1
        loads = {
            name: [_seconds(partial(store.load, newest)) for _ in range(NUM_LOADS)] for name, store in stores.items()
        }
        waits = {name: _waited(store) for name, store in stores.items() if name != "memory"}
    return [*_rows(saves, durable, loads), _row_of_loop(waits)]


def _rows(*measured: dict[str, list[float]]) -> list[Row]:
    names = ("the loop's wait in `save`", "until the checkpoint is durable", "`load`, verified")
    rows = []
    for name, seconds in zip(names, measured, strict=True):
        median = {place: statistics.median(values[1:]) for place, values in seconds.items()}  # the first one allocates
        for place in ("S3", "memory"):
            comparison = f"{1e3 * median[place]:.0f} ms compared with {1e3 * median['disk']:.0f} ms"
            title = f"{name}: {place} relative to the disk"
            rows.append(Row(title, median[place] / median["disk"], "x", None, comparison))
    return rows


def _row_of_loop(waits: dict[str, tuple[float, int]]) -> Row:
    (disk, on_disk), (remote, at_url) = waits["disk"], waits["S3"]
    comparison = f"S3: {1e3 * remote:.0f} ms, {at_url} checkpoints; disk: {1e3 * disk:.0f} ms, {on_disk} checkpoints"
    name = f"longest wait of a loop with a save every {EVERY} steps of {1e3 * STEP_SECONDS:.0f} ms: S3 relative to disk"
    return Row(name, remote / disk, "x", None, comparison)


def _checkpoints(url: str, folder: Path) -> Checkpoints:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, 12 * WIDTH, bias=False) for _ in range(NUM_LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return Checkpoints(url, staging=folder / "staging", keep=2, model=model, optimizer=optimizer)


class _Nothing:
    def __getitem__(self, index: int) -> int:
        return index


def _waited(store: Checkpoints) -> tuple[float, int]:
    """The longest time between two steps, and how many checkpoints of the loop became durable before it ended."""
    store.discard_after(-1)
    longest, last = 0.0, None
    for step, _ in Guard(Run(id="r"), checkpoints=store, every=EVERY).steps(_Nothing(), NUM_STEPS):
        now = time.perf_counter()
        if last is not None and step > EVERY:  # the first save allocates
            longest = max(longest, now - last)
        time.sleep(STEP_SECONDS)
        last = time.perf_counter()
    return longest, len(store.durable_steps())


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    print_rows(measure())
