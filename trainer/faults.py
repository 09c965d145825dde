"""Trouble planted on purpose: `--fault KIND@STEP[xN]`.

A fault is invisible to the detectors: nothing is declared, only the recorded configuration names it. Two causes:

* in the data: keyed by *batch index*, so a replay meets it again and only skipping gets past it;
* in the state (weights, moments, gradients, learning rate): strikes once at a step, as hardware does, and is not
  repeated after a rollback.

FAULTS is the table of all kinds. A new kind is a function and a row.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.batches import Batch, Batches
from trainer.errors import UserMistake
from trainer.ranks import own_part, position

PATTERN = re.compile(r"(?P<kind>\w+)@(?P<step>\d+)(?:x(?P<count>[1-9]\d*))?")
EXPONENT_TOP_BIT = 30  # of float32: turns a weight of size 0.02 into one of size 1e36
MANTISSA_TOP_BIT = 22  # changes a number by a fifth to a half
NGRAM = 8  # tokens of a repeated n-gram


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    step: int
    """First batch index of a fault in the data; step of a fault in the state."""
    count: int
    """Batches of a fault in the data; else see Kind.count."""

    def __str__(self) -> str:
        return f"{self.kind}@{self.step}x{self.count}"


DataFault = Callable[[Batch, int, np.random.Generator], Batch]
StateFault = Callable[[nn.Module, torch.optim.Optimizer, int, np.random.Generator], None]


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


def repeat_ngram(batch: Batch, vocab_size: int, generator: np.random.Generator) -> Batch:
    """One n-gram of the batch, over and over, in every row: a crawl's boilerplate. The loss falls, then it spikes."""
    num_rows, num_positions = batch.inputs_BT.shape
    ngram = batch.inputs_BT[int(generator.integers(num_rows)), :NGRAM]
    row = ngram.repeat(num_positions // len(ngram) + 2)
    inputs_BT = row[:num_positions].repeat(num_rows, 1)
    return Batch(batch.index, inputs_BT, row[1 : num_positions + 1].repeat(num_rows, 1))


def shuffle_labels(batch: Batch, vocab_size: int, generator: np.random.Generator) -> Batch:
    """Real inputs, and targets under a wrong table of tokens: every id stands for another one, always the same."""
    table = torch.from_numpy(np.random.default_rng(vocab_size).permutation(vocab_size))
    return Batch(batch.index, batch.inputs_BT, table[batch.targets_BT])


def flip_weights(bit: int) -> StateFault:
    """Flip `bit` of `count` weights of matrices."""

    def flip(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator) -> None:
        _flip_some([parameter for parameter in model.parameters() if parameter.dim() >= 2], count, bit, generator)

    return flip


def flip_moments(bit: int) -> StateFault:
    """Flip `bit` of `count` first moments. Before the first step there are none, and nothing happens."""

    def flip(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator) -> None:
        _flip_some([state["exp_avg"] for state in optimizer.state.values()], count, bit, generator)

    return flip


def lose_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator
) -> None:
    """Moments and step counts are gone, as after a restore that forgot them."""
    optimizer.state.clear()


def lose_second_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator
) -> None:
    """Half of the state is gone, as after a restore that forgot one tensor of each: steps are far too long."""
    for state in optimizer.state.values():
        state["exp_avg_sq"].zero_()


def spoil_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator
) -> None:
    """`count` numbers of the next gradient are NaN as soon as they are there, before DDP averages them over ranks."""
    parameters = [parameter for parameter in model.parameters() if own_part(parameter).numel()]
    for number in generator.integers(len(parameters), size=count):
        _spoil_next(parameters[number], int(generator.integers(own_part(parameters[number]).numel())))


def _spoil_next(parameter: nn.Parameter, item: int) -> None:
    def spoil(parameter: Tensor) -> None:
        hook.remove()
        assert parameter.grad is not None
        own_part(parameter.grad).view(-1)[item] = torch.nan

    hook = parameter.register_post_accumulate_grad_hook(spoil)  # type: ignore[no-untyped-call]


def grow_weights(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator
) -> None:
    """The optimizer's own settings are damaged: the decay of the matrices is -`count`, so that they grow by `count`
    times the learning rate a step. Every checkpoint carries it, and it shows only after a while.
    """
    for group in optimizer.param_groups:
        if group["weight_decay"] > 0:
            group["weight_decay"] = -float(count)


@torch.no_grad()
def swell_row(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, generator: np.random.Generator) -> None:
    """The embedding of the last token id is `count` times what it was. Where the text does not hold that token the
    model has learnt to give it a logit well below zero, which is now further below: nothing shows until it comes.
    """
    own_part(model.get_parameter("embedding.weight"))[-1] *= count


def plant_rare_token(batch: Batch, vocab_size: int, generator: np.random.Generator) -> Batch:
    """The last token id at one place of every other row: rare, and harmless to a sound model."""
    inputs_BT, targets_BT = batch.inputs_BT.clone(), batch.targets_BT.clone()
    places = generator.integers(1, inputs_BT.shape[1], size=len(inputs_BT))
    for row in range(0, len(inputs_BT), 2):
        inputs_BT[row, places[row]] = targets_BT[row, places[row] - 1] = vocab_size - 1
    return Batch(batch.index, inputs_BT, targets_BT)


def _flip_some(tensors: Iterable[Tensor], count: int, bit: int, generator: np.random.Generator) -> None:
    """`count` numbers, each as likely as any other."""
    tensors = [part for part in map(own_part, tensors) if part.numel()]
    sizes = np.array([tensor.numel() for tensor in tensors], dtype=np.float64)
    for number in generator.choice(len(tensors), size=count, p=sizes / sizes.sum()) if len(tensors) else ():
        flip_bit(tensors[number], int(generator.integers(tensors[number].numel())), bit)


@torch.no_grad()
def flip_bit(tensor: Tensor, item: int, bit: int) -> None:
    """Flip one bit of one float32, in place."""
    assert tensor.dtype == torch.float32
    tensor.view(-1).view(torch.int32)[item] ^= 1 << bit


@dataclass(frozen=True, slots=True)
class Kind:
    count: int
    """What N is when it is not given: batches, numbers that are struck, or steps at another learning rate."""
    on_data: DataFault | None = None
    on_state: StateFault | None = None
    """Strikes before the step."""
    lr_factor: float = 1.0
    """Factor on the learning rate for `count` steps."""


FAULTS: dict[str, Kind] = {
    "corrupted_batches": Kind(count=30, on_data=shuffle_targets),
    "random_targets": Kind(count=20, on_data=random_targets),
    "bit_flip": Kind(count=1, on_state=flip_weights(EXPONENT_TOP_BIT)),
    "mantissa_flip": Kind(count=64, on_state=flip_weights(MANTISSA_TOP_BIT)),
    "moment_flip": Kind(count=1, on_state=flip_moments(EXPONENT_TOP_BIT)),
    "moment_mantissa_flip": Kind(count=64, on_state=flip_moments(MANTISSA_TOP_BIT)),
    "lost_optimizer": Kind(count=1, on_state=lose_optimizer),
    "lost_second_moments": Kind(count=1, on_state=lose_second_moments),
    "nan_gradient": Kind(count=1, on_state=spoil_gradients),
    "lr_kick": Kind(count=10, lr_factor=30.0),
    "repeated_ngram": Kind(count=30, on_data=repeat_ngram),
    "label_shuffle": Kind(count=30, on_data=shuffle_labels),
    "growing_weights": Kind(count=30, on_state=grow_weights),
    "swollen_row": Kind(count=64, on_state=swell_row),
    "rare_token": Kind(count=5, on_data=plant_rare_token),
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

    def __init__(self, batches: Batches, faults: Iterable[Fault], *, at_steps: bool = False) -> None:
        """`at_steps`: a fault strikes the batches that the run is about to use when it first reaches the fault's step,
        whatever it skipped before; from then on these batches are the faulty ones. Otherwise the step is the index."""
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
                batch = corrupt(batch, self.batches.vocab_size, generator)
        return batch


class StateFaults:
    """The faults that strike weights, moments, gradients or the learning rate, each once in the life of the process.

    Of several processes the last one alone is struck, as by hardware, but the learning rate is that of all.
    """

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self.seed = seed
        rank, num_ranks = position()
        self._here = rank == num_ranks - 1
        self._waiting = [fault for fault in faults if FAULTS[fault.kind].on_data is None]
        self._present: list[Fault] = []
        self._step = -1

    def begin(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Before the step. A step that is not above the last one is a rollback, which ends what still lasted."""
        lasting = [each for each in self._present if self._step < step < each.step + each.count]
        self._present = [each for each in lasting if FAULTS[each.kind].lr_factor != 1.0]
        for fault in [fault for fault in self._waiting if fault.step == step]:
            self._waiting.remove(fault)
            self._present.append(fault)
        self._step = step
        for fault in self._present if self._here else ():
            strike = FAULTS[fault.kind].on_state
            if strike is not None:
                strike(model, optimizer, fault.count, np.random.default_rng([self.seed, fault.step]))

    @property
    def lr_factor(self) -> float:
        """On the learning rate of the present step."""
        return math.prod(FAULTS[fault.kind].lr_factor for fault in self._present)
