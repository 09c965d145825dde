"""CPU time of the loop's thread inside Lossguard, for each step of a guarded run of a framework.

    python -m benchmarks.frameworks.own_time hf|lightning|accelerate

Loading data is not counted, because the framework alone does it too. Other processes disturb it less than a comparison
of runs.
"""

import functools
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.frameworks.job import Arm, Job

STEPS = 200
METHODS: dict[str, dict[str, tuple[str, ...]]] = {
    "hf": {"lossguard.hf.guarding.Guarding": ("_boundary", "log_step", "_add", "on_step_end", "on_pre_optimizer_step")},
    "lightning": {
        "lossguard.lightning.callback.Lossguard": (
            *("_boundary", "flush", "on_train_batch_end", "on_before_optimizer_step", "_scale", "_unscale"),
        )
    },
    "accelerate": {
        "lossguard.guard.guard.Guard": ("boundary",),
        "lossguard.run.recording.RecordingRun": ("log",),
        "benchmarks.frameworks.with_accelerate": ("over_ranks",),
    },
}
"""What the loop's thread enters."""


class Stopwatch:
    """Sums the time in the functions that it has wrapped; in nested ones, that of the outer one."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_running = False

    def wrap(self, owner: Any, name: str) -> None:
        setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._is_running:
                return function(*args, **kwargs)
            self._is_running, began = True, time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - began
                self._is_running = False

        return timed


def main(framework: str) -> None:
    """Prints one line."""
    torch.set_num_threads(1)
    arm: Arm = importlib.import_module(f"benchmarks.frameworks.with_{framework}")
    stopwatch = Stopwatch()
    for path, names in METHODS[framework].items():
        module, _, attribute = path.rpartition(".")
        owner = getattr(importlib.import_module(module), attribute)
        for name in names:
            stopwatch.wrap(owner, name)
    with tempfile.TemporaryDirectory() as folder:
        result = arm.train(Job(folder=Path(folder), guarded=True, steps=STEPS, mode="offline"))
    step, own = statistics.mean(result.loop_cpu_seconds[10:]), stopwatch.seconds / STEPS
    print(f"{framework}: {1000 * own:.2f} ms of a step of {1000 * step:.1f} ms: {own / (step - own):+.2%}")


if __name__ == "__main__":
    main(sys.argv[1])
