"""Trouble planted on purpose: `--fault KIND@STEP[xN]`.

A fault is invisible to the detectors: nothing is declared, only the recorded configuration names it. Two causes:

* in the data: keyed by *batch index*, so a replay meets it again and only skipping gets past it;
* in the state: strikes once at a step, as hardware does, and is not repeated after a rollback.

FAULTS is the table of all kinds. A new kind is a function and a row.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data import Batch, Batches
from trainer.errors import UserMistake

PATTERN = re.compile(r"(?P<kind>\w+)@(?P<step>\d+)(?:x(?P<count>[1-9]\d*))?")
EXPONENT_TOP_BIT = 30  # of float32: turns a weight of size 0.02 into one of size 1e36


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    step: int
    """First batch index of a fault in the data; step of a fault in the state."""
    count: int
    """Batches of a fault in the data; weights of a fault in the state."""

    def __str__(self) -> str:
        return f"{self.kind}@{self.step}x{self.count}"


DataFault = Callable[[Batch, int, np.random.Generator], Batch]
StateFault = Callable[[nn.Module, int, np.random.Generator], None]


def random_targets(batch: Batch, vocab_size: int, generator: np.random.Generator) -> Batch:
    """Real inputs, and targets drawn uniformly: the labels have nothing to do with the text."""
    targets = generator.integers(0, vocab_size, size=batch.targets_BT.shape)
    return Batch(batch.index, batch.inputs_BT, torch.from_numpy(targets))


def shuffle_targets(batch: Batch, vocab_size: int, generator: np.random.Generator) -> Batch:
    """Real inputs, and the batch's own targets in another order: what a loader that mixes up its rows feeds.

    The marginal distribution is right, so the loss rises only to the entropy of single bytes, and the model learns to
    ignore its context: the lasting damage is larger than that of noise, which it learns to expect and forgets again.
    """
    targets = generator.permutation(batch.targets_BT.flatten().numpy())
    return Batch(batch.index, batch.inputs_BT, torch.from_numpy(targets).view_as(batch.targets_BT))


def flip_weights(model: nn.Module, count: int, generator: np.random.Generator) -> None:
    """Flip the top exponent bit of `count` weights of matrices."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    sizes = np.array([parameter.numel() for parameter in matrices], dtype=np.float64)
    for matrix in generator.choice(len(matrices), size=count, p=sizes / sizes.sum()):
        flip_bit(matrices[matrix], int(generator.integers(matrices[matrix].numel())), EXPONENT_TOP_BIT)


@torch.no_grad()
def flip_bit(parameter: Tensor, item: int, bit: int) -> None:
    """Flip one bit of one float32, in place."""
    assert parameter.dtype == torch.float32
    parameter.view(-1).view(torch.int32)[item] ^= 1 << bit


@dataclass(frozen=True, slots=True)
class Kind:
    count: int
    """What N is when it is not given."""
    on_data: DataFault | None = None
    on_state: StateFault | None = None


FAULTS: dict[str, Kind] = {
    "corrupted_batches": Kind(count=30, on_data=shuffle_targets),
    "random_targets": Kind(count=20, on_data=random_targets),
    "bit_flip": Kind(count=1, on_state=flip_weights),
}


def parse_fault(text: str) -> Fault:
    """Read KIND@STEP[xN]. Raises UserMistake."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise UserMistake(
            f"The fault {text!r} cannot be read: write KIND@STEP or KIND@STEPxN, as corrupted_batches@320."
        )
    kind = match["kind"]
    if kind not in FAULTS:
        raise UserMistake(f"There is no fault {kind!r}; choose one of: {', '.join(FAULTS)}.")
    return Fault(kind, int(match["step"]), int(match["count"] or FAULTS[kind].count))


class FaultyBatches:
    """The training data with the data faults in it."""

    def __init__(self, batches: Batches, faults: Iterable[Fault]) -> None:
        self.batches = batches
        self.faults = [(fault, FAULTS[fault.kind].on_data) for fault in faults]

    def __getitem__(self, index: int) -> Batch:
        batch = self.batches[index]
        for fault, corrupt in self.faults:
            if corrupt is not None and fault.step <= index < fault.step + fault.count:
                generator = np.random.default_rng([self.batches.seed, fault.step, index])
                batch = corrupt(batch, self.batches.vocab_size, generator)
        return batch


class StateFaults:
    """The faults that strike the weights, each once in the life of the process."""

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self.seed = seed
        self._waiting = [fault for fault in faults if FAULTS[fault.kind].on_state is not None]

    def strike(self, step: int, model: nn.Module) -> None:
        for fault in [fault for fault in self._waiting if fault.step == step]:
            self._waiting.remove(fault)
            on_state = FAULTS[fault.kind].on_state
            assert on_state is not None
            on_state(model, fault.count, np.random.default_rng([self.seed, fault.step]))
