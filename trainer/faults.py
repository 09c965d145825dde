"""Faults that are injected on purpose: `--fault KIND@STEP[xN]`.

The detectors do not know of a fault: only the recorded configuration names it. There are two classes:

* in the data: keyed by *batch index*, so that a replay meets it again, and only skipping gets past it;
* in the state (weights, moments, gradients, learning rate): strikes once at a step, like a hardware fault, and does
  not occur again after a rollback.

FAULTS is the table of all kinds. A new kind is a function and a row.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from trainer.data.batches import TokenBatches
from trainer.data.windows import PADDING, Batch
from trainer.errors import UsageError
from trainer.process.ranks import local_part, rank_and_size

PATTERN = re.compile(r"(?P<kind>\w+)@(?P<step>\d+)(?:x(?P<count>[1-9]\d*))?")
EXPONENT_TOP_BIT = 30  # of float32: changes 0.02 to 1e36
MANTISSA_TOP_BIT = 22  # changes a number by 20 to 50 %
NGRAM_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    step: int
    """First batch index of a fault in the data; step of a fault in the state."""
    count: int
    """Number of batches of a fault in the data; otherwise see FaultKind.count."""

    def __str__(self) -> str:
        return f"{self.kind}@{self.step}x{self.count}"


class State(NamedTuple):
    """What a fault in the state changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


DataFault = Callable[[Batch, int, Generator], Batch]
StateFault = Callable[[State, int, Generator], None]


def random_targets(batch: Batch, vocab_size: int, generator: Generator) -> Batch:
    """Real inputs with uniformly random targets, unrelated to the text."""
    targets = generator.integers(0, vocab_size, size=batch.targets_BT.shape)
    return replace(batch, targets_BT=torch.from_numpy(targets))


def shuffle_targets(batch: Batch, vocab_size: int, generator: Generator) -> Batch:
    """Real inputs with the batch's own targets in another order, as from a loader that mixes up its rows.

    The marginal distribution is right, so the loss rises only to the entropy of single bytes, and the model learns to
    ignore its context. The damage lasts longer than that of random targets.
    """
    targets = generator.permutation(batch.targets_BT.flatten().numpy())
    return replace(batch, targets_BT=torch.from_numpy(targets).view_as(batch.targets_BT))


def repeat_ngram(batch: Batch, vocab_size: int, generator: Generator) -> Batch:
    """One n-gram of the batch, repeated in every row, like the boilerplate of a crawl. The loss falls, then spikes."""
    num_rows, num_positions = batch.inputs_BT.shape
    ngram = batch.inputs_BT[int(generator.integers(num_rows)), :NGRAM_TOKENS]
    row = ngram.repeat(num_positions // len(ngram) + 2)
    inputs_BT = row[:num_positions].repeat(num_rows, 1)
    return Batch(batch.index, inputs_BT, row[1 : num_positions + 1].repeat(num_rows, 1))


def shuffle_labels(batch: Batch, vocab_size: int, generator: Generator) -> Batch:
    """Real inputs with targets from a wrong vocabulary: a fixed permutation of the token ids."""
    table = torch.from_numpy(np.random.default_rng(vocab_size).permutation(vocab_size))
    return replace(batch, targets_BT=table[batch.targets_BT])


def flip_weights(state: State, count: int, generator: Generator, *, bit: int) -> None:
    """Flip `bit` of `count` weights in matrices."""
    _flip_random([parameter for parameter in state.model.parameters() if parameter.dim() >= 2], count, bit, generator)


def flip_moments(state: State, count: int, generator: Generator, *, bit: int) -> None:
    """Flip `bit` of `count` first moments; before the first step there are none."""
    _flip_random([moments["exp_avg"] for moments in state.optimizer.state.values()], count, bit, generator)


def lose_optimizer(state: State, count: int, generator: Generator) -> None:
    """Delete moments and step counts, like a restore that forgets them."""
    state.optimizer.state.clear()


def lose_second_moments(state: State, count: int, generator: Generator) -> None:
    """Delete the second moments, like an incomplete restore: the next steps are far too long."""
    for moments in state.optimizer.state.values():
        moments["exp_avg_sq"].zero_()


def corrupt_gradients(state: State, count: int, generator: Generator) -> None:
    """Set `count` numbers of the next gradient to NaN before DDP averages them over ranks."""
    parameters = [parameter for parameter in state.model.parameters() if local_part(parameter).numel()]
    for number in generator.integers(len(parameters), size=count):
        _corrupt_next(parameters[number], int(generator.integers(local_part(parameters[number]).numel())))


def _corrupt_next(parameter: nn.Parameter, item: int) -> None:
    def corrupt(parameter: Tensor) -> None:
        hook.remove()
        assert parameter.grad is not None
        local_part(parameter.grad).view(-1)[item] = torch.nan

    hook = parameter.register_post_accumulate_grad_hook(corrupt)  # type: ignore[no-untyped-call]


def grow_weights(state: State, count: int, generator: Generator) -> None:
    """Set the weight decay of the matrices to -`count`, so that they grow by `count` times the learning rate per step.
    Every checkpoint contains the damage, which shows only after a while.
    """
    for group in state.optimizer.param_groups:
        if group["weight_decay"] > 0:
            group["weight_decay"] = -float(count)


@torch.no_grad()
def scale_embedding(state: State, count: int, generator: Generator) -> None:
    """Multiply the embedding of the last token id by `count`. If the text does not contain that token, its logit is far
    below zero and falls further: nothing shows until the token occurs.
    """
    local_part(state.model.get_parameter("embedding.weight"))[-1] *= count


def insert_rare_token(batch: Batch, vocab_size: int, generator: Generator) -> Batch:
    """Insert the last token id once in every other row: rare, and harmless for an undamaged model."""
    inputs_BT, targets_BT = batch.inputs_BT.clone(), batch.targets_BT.clone()
    places = generator.integers(1, inputs_BT.shape[1], size=len(inputs_BT))
    for row in range(0, len(inputs_BT), 2):
        inputs_BT[row, places[row]] = targets_BT[row, places[row] - 1] = vocab_size - 1
    return Batch(batch.index, inputs_BT, targets_BT)


def _flip_random(tensors: Iterable[Tensor], count: int, bit: int, generator: Generator) -> None:
    """Flip a bit of `count` numbers, chosen with equal probability."""
    tensors = [part for part in map(local_part, tensors) if part.numel()]
    sizes = np.array([tensor.numel() for tensor in tensors], dtype=np.float64)
    for number in generator.choice(len(tensors), size=count, p=sizes / sizes.sum()) if len(tensors) else ():
        flip_bit(tensors[number], int(generator.integers(tensors[number].numel())), bit)


@torch.no_grad()
def flip_bit(tensor: Tensor, item: int, bit: int) -> None:
    assert tensor.dtype == torch.float32
    tensor.view(-1).view(torch.int32)[item] ^= 1 << bit


@dataclass(frozen=True, slots=True)
class FaultKind:
    """The actions of a kind of fault."""

    count: int
    """The default of N: batches, numbers that are changed, or steps at another learning rate."""
    on_data: DataFault | None = None
    """Changes a batch."""
    on_state: StateFault | None = None
    """Changes the state before the step."""
    lr_factor: float = 1.0
    """Factor on the learning rate for `count` steps."""


FAULTS: dict[str, FaultKind] = {
    "corrupted_batches": FaultKind(count=30, on_data=shuffle_targets),
    "random_targets": FaultKind(count=20, on_data=random_targets),
    "bit_flip": FaultKind(count=1, on_state=partial(flip_weights, bit=EXPONENT_TOP_BIT)),
    "mantissa_flip": FaultKind(count=64, on_state=partial(flip_weights, bit=MANTISSA_TOP_BIT)),
    "moment_flip": FaultKind(count=1, on_state=partial(flip_moments, bit=EXPONENT_TOP_BIT)),
    "moment_mantissa_flip": FaultKind(count=64, on_state=partial(flip_moments, bit=MANTISSA_TOP_BIT)),
    "lost_optimizer": FaultKind(count=1, on_state=lose_optimizer),
    "lost_second_moments": FaultKind(count=1, on_state=lose_second_moments),
    "nan_gradient": FaultKind(count=1, on_state=corrupt_gradients),
    "lr_kick": FaultKind(count=10, lr_factor=30.0),
    "repeated_ngram": FaultKind(count=30, on_data=repeat_ngram),
    "label_shuffle": FaultKind(count=30, on_data=shuffle_labels),
    "growing_weights": FaultKind(count=30, on_state=grow_weights),
    "swollen_row": FaultKind(count=64, on_state=scale_embedding),
    "rare_token": FaultKind(count=5, on_data=insert_rare_token),
}


def parse_fault(text: str) -> Fault:
    """Read KIND@STEP[xN]. Raises UsageError."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(
            f"The fault {text!r} cannot be read: write KIND@STEP or KIND@STEPxN, such as corrupted_batches@320."
        )
    kind = match["kind"]
    if kind not in FAULTS:
        raise UsageError(f"There is no fault {kind!r}; choose one of: {', '.join(FAULTS)}.")
    return Fault(kind, int(match["step"]), int(match["count"] or FAULTS[kind].count))


class FaultyBatches:
    """The training data with the faults in it."""

    def __init__(self, batches: TokenBatches, faults: Iterable[Fault], *, at_steps: bool = False) -> None:
        """`at_steps`: the faulty batches are those that the run uses when it first reaches the fault's step, whatever
        it has skipped before, and they remain the faulty ones. Otherwise the step is the batch index."""
        self.batches = batches
        self._first = {
            fault: None if at_steps else fault.step for fault in faults if FAULTS[fault.kind].on_data is not None
        }

    def reach(self, step: int, index: int) -> None:
        """The run is about to take batch `index` for `step`."""
        for fault, first in self._first.items():
            if first is None and fault.step == step:
                self._first[fault] = index

    def __getitem__(self, index: int) -> Batch:
        batch = self.batches[index]
        for fault, first in self._first.items():
            corrupt = FAULTS[fault.kind].on_data
            if corrupt is not None and first is not None and first <= index < first + fault.count:
                generator = np.random.default_rng([self.batches.seed, fault.step, index])
                is_padding_BT = batch.targets_BT == PADDING
                filled = replace(batch, targets_BT=batch.targets_BT.masked_fill(is_padding_BT, 0))
                batch = corrupt(filled, self.batches.vocab_size, generator)
                batch = replace(batch, targets_BT=batch.targets_BT.masked_fill(is_padding_BT, PADDING))
        return batch


class StateFaults:
    """The faults in weights, moments, gradients or the learning rate; each occurs once in the life of the process.

    With several processes only the last one is affected, like a hardware fault; the learning rate concerns all.
    """

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self.seed = seed
        rank, num_ranks = rank_and_size()
        self._is_affected = rank == num_ranks - 1
        self._waiting = [fault for fault in faults if FAULTS[fault.kind].on_data is None]
        self._present: list[Fault] = []
        self._step = -1

    def begin(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, strikes: bool = True) -> None:
        """Call it before each step. A step that is not greater than the last one is a rollback: it ends all faults.

        `strikes`: whether the step may be the first of a fault.
        """
        lasting = [each for each in self._present if self._step < step < each.step + each.count]
        self._present = [each for each in lasting if FAULTS[each.kind].lr_factor != 1.0]
        for fault in [fault for fault in self._waiting if strikes and fault.step == step]:
            self._waiting.remove(fault)
            self._present.append(fault)
        self._step = step
        for fault in self._present if self._is_affected else ():
            strike = FAULTS[fault.kind].on_state
            if strike is not None:
                strike(State(model, optimizer), fault.count, np.random.default_rng([self.seed, fault.step]))

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate of the current step."""
        return math.prod(FAULTS[fault.kind].lr_factor for fault in self._present)
