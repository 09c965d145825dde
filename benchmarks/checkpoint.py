"""How long a save holds up the training loop (in the background, blocking, in memory), and how long a load takes.

    python -m benchmarks.checkpoint

A GPT-like state with AdamW's moments, on the local disk. Each background write finishes before the next save, as it
does between two checkpoints of a run.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import Row, print_rows
from lossguard.torch import Checkpoints

NUM_SAVES, NUM_LOADS = 8, 3
WIDTH, NUM_LAYERS = 512, 8  # 25 M parameters: 300 MB with the moments
NUM_TOKENS = 1024  # of a step
MEMORY_EVERY = 20  # steps between two saves in memory


def measure() -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Linear(WIDTH, 12 * WIDTH, bias=False) for _ in range(NUM_LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        blocking = Checkpoints(Path(folder) / "a", keep=2, blocking=True, model=model, optimizer=optimizer)
        background = Checkpoints(Path(folder) / "b", keep=2, model=model, optimizer=optimizer)
        blocking_seconds = [_save(blocking, number) for number in range(NUM_SAVES)]
        background_seconds = [_save(background, number) for number in range(NUM_SAVES)]
        memory = Checkpoints(Path(folder) / "c", memory=2, memory_every=MEMORY_EVERY, model=model, optimizer=optimizer)
        memory_seconds = [_seconds(lambda: memory.save_in_memory(0, {})) for _ in range(2 * NUM_SAVES)]
        load_seconds = [_seconds(lambda: memory.load(0)) for _ in range(NUM_LOADS)]
        disk_load_seconds = [_seconds(lambda: blocking.load(NUM_SAVES)) for _ in range(NUM_LOADS)]
        step_seconds = [_seconds(lambda: _step(model, optimizer)) for _ in range(NUM_SAVES)]
    torch.set_num_threads(before)
    whole = statistics.median(blocking_seconds)
    part = statistics.median(background_seconds[1:])  # the first save allocates the buffers
    size = 3 * sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6
    comparison = f"{1e3 * part:.0f} ms compared with {1e3 * whole:.0f} ms for writing {size:.0f} MB"
    held, step = statistics.median(memory_seconds[2:]), statistics.median(step_seconds)
    share = f"{1e3 * held:.0f} ms every {MEMORY_EVERY} steps of {1e3 * step:.0f} ms ({NUM_TOKENS} tokens, one core)"
    load, disk_load = statistics.median(load_seconds), statistics.median(disk_load_seconds)
    loads = f"{1e3 * load:.0f} ms compared with {1e3 * disk_load:.0f} ms, both verified; the disk's cache is warm"
    return [
        Row("time in `save`: background relative to blocking", 100 * part / whole, "%", 5.0, comparison),
        Row("time in `save_in_memory`, of the training time", 100 * held / (MEMORY_EVERY * step), "%", 1.0, share),
        Row("`load` from memory relative to the disk", 100 * load / disk_load, "%", None, loads),
    ]


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step of training on as many tokens."""
    inputs = torch.randn(NUM_TOKENS, WIDTH)
    optimizer.zero_grad()
    sum(layer(inputs).square().mean() for layer in model.children()).backward()
    optimizer.step()


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _save(checkpoints: Checkpoints, number: int) -> float:
    """Seconds for which the loop is held up."""
    began = time.perf_counter()
    checkpoints.save(number, {"step": number})
    seconds = time.perf_counter() - began
    checkpoints.settle(wait=True)
    return seconds


if __name__ == "__main__":
    print_rows(measure())
