"""What each framework trains for docs/frameworks.md, plain and guarded, and what is compared."""

import hashlib
import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from examples.laptop import TinyModel, loss_of, text

RANK, NUM_RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
BATCH_SIZE, ACCUMULATE, EVERY = 8, 2, 25
NUM_SAMPLES, NUM_HELD_OUT = 4_840 * NUM_RANKS, 400
"""An epoch has 302.5 steps on any number of ranks: the last one has a single micro-batch."""
BAD_BATCHES = range(200, 225)
"""Their targets are shuffled."""
NAN_STEP = 380
"""Before this step, one weight becomes NaN, once."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a model."""

    width: int
    layers: int


DATA = ("map", "workers", "streaming")
"""A map-style data set, the same with two workers, or a stream of `datasets` that is shuffled in a buffer."""

TINY = Size(width=64, layers=2)
LARGER = Size(width=192, layers=4)
"""Its steps take a few hundred milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    folder: Path
    size: Size = TINY
    seed: int = 0
    steps: int = 600
    guarded: bool = False
    faults: bool = False
    skips: Sequence[tuple[int, int]] = ()
    """Batch ranges that a plain run leaves out."""
    mode: str | None = None
    run_id: str | None = None
    """Of `lossguard.init`, both."""
    data: str = "map"
    """The way in which a Trainer gets the samples: one of DATA."""
    kill_at: int | None = None
    """Step before which all processes of a guarded run kill themselves."""


@dataclass(kw_only=True)
class Result:
    """What a run has seen and become."""

    run_id: str = ""
    seen: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    """Step -> (checksum of the contents, loss) of each micro-batch; of repeated steps, the last."""
    executed: int = 0
    states: str = ""
    """Digest of the weights, the optimizer, the schedule and torch's random numbers."""
    held_out: float = 0.0
    """Nats per byte."""
    step_seconds: list[float] = field(default_factory=list)
    loop_cpu_seconds: list[float] = field(default_factory=list)
    """Of the thread that trains: on a machine that does other work too, these are the ones to compare."""
    cpu_seconds: list[float] = field(default_factory=list)
    """Of all threads of the process."""

    def write(self, folder: Path) -> None:
        """For the process that started this rank."""
        parts = {"run_id": self.run_id, "seen": self.seen, "executed": self.executed, "states": self.states}
        parts["held_out"] = self.held_out
        (folder / f"rank-{RANK}.json").write_text(json.dumps(parts), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, rank: int) -> "Result":
        """What `write` wrote on this rank."""
        parts = json.loads((folder / f"rank-{rank}.json").read_text(encoding="utf-8"))
        seen = {int(step): [(each[0], each[1]) for each in micro] for step, micro in parts.pop("seen").items()}
        return cls(seen=seen, **parts)


class Arm(Protocol):
    """A framework."""

    def train(self, job: Job) -> Result:
        """Train `TinyModel` on `samples()` with dropout, AdamW, clipping at 1 and ACCUMULATE micro-batches a step."""


class Trace:
    """Notes what a run sees, and plants its faults; of every framework the same."""

    def __init__(self, job: Job) -> None:
        self.job, self.result = job, Result()
        self._has_struck = False
        self._began = _clocks()

    def strike(self, step: int, model: nn.Module) -> None:
        """Before a step: the end of the process, or the fault of the state, once."""
        if step == self.job.kill_at:
            self.result.write(self.job.folder)
            with suppress(RuntimeError):  # of the last ranks here: another one is dead already
                dist.barrier()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.job.faults and self.job.guarded and step == NAN_STEP and not self._has_struck:
            self._has_struck = True
            with torch.no_grad():
                list(model.parameters())[-1].view(-1)[3] = float("nan")

    def targets(self, rows_BT: Tensor, batch: int) -> Tensor:
        """The targets of a micro-batch, which are shuffled in bad batches, the same way each time."""
        targets_BT = rows_BT[:, 1:]
        if not self.job.faults or batch not in BAD_BATCHES:
            return targets_BT
        order = torch.randperm(targets_BT.numel(), generator=torch.Generator().manual_seed(checksum(rows_BT)))
        return targets_BT.flatten()[order].view_as(targets_BT)

    def step_done(self, step: int, micro: list[tuple[int, str]]) -> None:
        result, now = self.result, _clocks()
        for seconds, end, began in zip(
            (result.step_seconds, result.loop_cpu_seconds, result.cpu_seconds), now, self._began, strict=True
        ):
            seconds.append(end - began)
        self._began = now
        self.result.seen[step] = micro
        self.result.executed += 1

    def finish(self, model: nn.Module, *others: Any, logits: Callable[[Tensor], Tensor] | None = None) -> Result:
        """`others`: the optimizer and the schedule. `logits`: those of the model, if it returns something else."""
        digest = hashlib.sha256()
        for state in (model.state_dict(), *(each.state_dict() for each in others), torch.get_rng_state()):
            digest.update(repr(_plain(state)).encode())
        self.result.states = digest.hexdigest()[:16]
        self.result.held_out = held_out_loss(model, logits or model)
        return self.result


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.thread_time(), time.process_time()


def samples() -> Tensor:
    """(NUM_SAMPLES, CONTEXT + 1)"""
    return text(NUM_SAMPLES + NUM_HELD_OUT)[:NUM_SAMPLES]


def new_model(size: Size) -> TinyModel:
    return TinyModel(size.width, size.layers)


@torch.no_grad()
def held_out_loss(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> float:
    """Nats per byte on text that no run trains on."""
    rows = text(NUM_SAMPLES + NUM_HELD_OUT)[NUM_SAMPLES:]
    model.eval()
    loss = loss_of(logits(rows[:, :-1]), rows[:, 1:]).item()
    model.train()
    return loss


def checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().numpy().tobytes())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (tuple(value.shape), checksum(value)) if isinstance(value, Tensor) else value
