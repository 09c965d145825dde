"""The abilities that one objective teaches: the loss by kind of token and by position, and copying, over one training.

    python -m trainer lab --abilities [--seed 1] [--seeds 3] [--quick] [--json]

Shapes: N windows, T positions, V vocabulary.
"""

import keyword
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from lossguard import Estimate, Run
from lossguard.torch import checkpoints_in, token_losses
from trainer.config import CheckpointConfig, Recipe
from trainer.data.batches import open_batches
from trainer.data.tokens import is_text
from trainer.display import print_table
from trainer.errors import UsageError
from trainer.lab.training import Lab
from trainer.process.provenance import load_model
from trainer.train import Job, train

RECIPE = "drill"
NUM_CHECKPOINTS = 10
NUM_COPIES, COPY_LENGTH = 256, 24
"""Random sequences that are shown twice, and their length."""
POSITIONS = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64))
"""Ranges of positions in a window: [from, to)."""
KINDS = ("indentation", "keyword", "bracket", "new name", "repeated name", "other")
WORD = re.compile(rb"[A-Za-z_]\w*")
INDENTATION = re.compile(rb"(?<=\n) +")
BRACKET = re.compile(rb"[()\[\]{}]")


@dataclass(frozen=True, slots=True)
class Abilities:
    """One model over its training. Losses in nats per token, on held-out windows."""

    seed: int
    steps: list[int]
    """Steps done at each measurement; the other lists have one entry for each."""
    kinds: dict[str, list[float]]
    """Loss by kind of token."""
    counts: dict[str, int]
    """Tokens of each kind."""
    positions: list[float]
    """At the end, by POSITIONS."""
    copied: list[float]
    """Loss of a random sequence that is shown for the second time."""
    first_time: list[float]
    """Its loss the first time."""


def kinds_of(window: bytes) -> list[str]:
    """The kind of every byte of a piece of Python. A name is repeated if it has occurred in the piece before."""
    found = ["other"] * len(window)
    for pattern, kind in ((INDENTATION, "indentation"), (BRACKET, "bracket")):
        for match in pattern.finditer(window):
            found[match.start() : match.end()] = [kind] * len(match[0])
    seen: set[bytes] = set()
    for match in WORD.finditer(window):
        is_keyword = keyword.iskeyword(match[0].decode("ascii", "replace"))
        kind = "keyword" if is_keyword else "repeated name" if match[0] in seen else "new name"
        found[match.start() : match.end()] = [kind] * len(match[0])
        seen.add(match[0])
    return found


@torch.no_grad()
def losses_of(model: nn.Module, windows_NT: Tensor) -> Tensor:
    """The loss of every token but the first of its window: (N, T - 1)."""
    return token_losses(model(windows_NT[:, :-1]), windows_NT[:, 1:])


def copying(model: nn.Module, vocab_size: int, context: int) -> tuple[float, float]:
    """(loss of random tokens the first time, loss of the same ones right after it), without the first of each.

    Where a model copies, the second is lower: nothing but the first showing says what comes (Olsson et al. 2022).
    """
    length = min(COPY_LENGTH, (context + 1) // 2)
    generator = torch.Generator().manual_seed(0)
    once_NT = torch.randint(32, min(127, vocab_size), (NUM_COPIES, length), generator=generator)
    losses_NT = losses_of(model, torch.cat((once_NT, once_NT), dim=1))
    return losses_NT[:, : length - 1].mean().item(), losses_NT[:, length:].mean().item()


def abilities(models: Iterable[tuple[int, nn.Module]], recipe: Recipe) -> Abilities:
    """Measure the models of one training, each with the steps done, on the held-out windows without padding."""
    _, held_out = open_batches(recipe)
    if held_out is None or not is_text(held_out.windows.shards):
        raise UsageError("--abilities needs text as data, in bytes, some of it held out.")
    numbers = held_out.whole_windows
    chosen = numbers[np.linspace(0, len(numbers) - 1, min(recipe.evaluate_windows, len(numbers))).astype(int)]
    windows_NT = torch.from_numpy(held_out.windows.take(chosen))
    kinds = np.array([kinds_of(bytes(window)) for window in windows_NT.tolist()])[:, 1:]
    steps, copied, first_time = [], [], []
    by_kind: dict[str, list[float]] = defaultdict(list)
    losses_NT: NDArray[np.float32] = np.zeros(kinds.shape, dtype=np.float32)
    for step, model in models:
        losses_NT = losses_of(model, windows_NT).numpy()
        steps.append(step)
        for kind in KINDS:
            by_kind[kind].append(float(losses_NT[kinds == kind].mean()))
        first, second = copying(model, recipe.model.vocab_size, recipe.model.context)
        first_time.append(first)
        copied.append(second)
    counts = {kind: int((kinds == kind).sum()) for kind in KINDS}
    positions = [float(losses_NT[:, begin:end].mean()) for begin, end in POSITIONS if begin < losses_NT.shape[1]]
    return Abilities(recipe.seed, steps, dict(by_kind), counts, positions, copied, first_time)


def ability_runs(lab: Lab) -> Iterator[Abilities]:
    """Raises UsageError and Stopped."""
    for seed in lab.seeds():
        recipe = lab.recipe(RECIPE, seed)
        lab.report(f"{recipe.name}, seed {seed}, {recipe.steps} steps")
        every = max(1, recipe.steps // NUM_CHECKPOINTS)
        kept = CheckpointConfig(every=every, keep=NUM_CHECKPOINTS + 1, memory=0)
        with TemporaryDirectory(dir=lab.folder) as place:
            job = Job(directory=Path(place), run=Run(id=recipe.name), quiet=True)
            train(replace(recipe, evaluate_every=0, probe_every=0, checkpoint=kept), job).complete()
            found = checkpoints_in(Path(place) / recipe.project / recipe.name / "checkpoints")
            yield abilities(((step, load_model(found[step])) for step in sorted(found)), recipe)


def show_abilities(results: Sequence[Abilities], console: Console) -> None:
    """Print one row per measurement: means over the seeds, with standard errors."""
    rows = []
    for number, step in enumerate(results[0].steps):
        columns = [[each.kinds[kind][number] for each in results] for kind in KINDS]
        columns += [[each.first_time[number] for each in results], [each.copied[number] for each in results]]
        rows.append([str(step), *(str(Estimate.of(values)) for values in columns)])
    print_table(console, ("steps", *KINDS, "random text", "its copy"), rows)
    by_position = [str(Estimate.of(values)) for values in zip(*(each.positions for each in results), strict=True)]
    ranges = [f"{begin + 1}-{end}" for begin, end in POSITIONS]
    console.print("loss by position: " + ", ".join(map(" ".join, zip(ranges, by_position, strict=False))))
