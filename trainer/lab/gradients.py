"""The gradients of squared error and cross-entropy at the true token's logit: the reason why the former fails.

    python -m trainer lab --gradients [--json] [--plot FILE.svg]

The gradients are those of the trainer's own objectives, by autograd. The squared error's depends on where the other
probability lies: the two extremes are shown. Nothing is trained.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from trainer.display import print_table
from trainer.errors import UsageError
from trainer.lab.plot import Axis, PlottedCurve, svg
from trainer.lab.training import Lab
from trainer.optimization.objective import squared_error

VOCAB_SIZE = 256
PROBABILITIES = (0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999)
"""Probabilities of the true token."""
NUM_PLOTTED = 60


@dataclass(frozen=True, slots=True)
class Gradients:
    """Absolute derivatives of the losses by the logit of the true token."""

    probability: float
    """Probability of the true token."""
    cross_entropy: float
    squared_error_one_wrong: float
    """The derivative if one wrong token has all other probability."""
    squared_error_spread: float
    """The derivative if all wrong tokens are equally likely."""


def gradients_at(probability: float) -> Gradients:
    """Return the gradients at a probability of the true token between 0 and 1, exclusive."""
    others = torch.full((VOCAB_SIZE - 1,), (1 - probability) / (VOCAB_SIZE - 1), dtype=torch.float64)
    spread_V = torch.cat((torch.tensor([probability], dtype=torch.float64), others))
    one_wrong_V = torch.tensor([probability, 1 - probability], dtype=torch.float64)
    return Gradients(
        probability,
        _at_target(F.cross_entropy, spread_V),
        _at_target(squared_error, one_wrong_V),
        _at_target(squared_error, spread_V),
    )


def _at_target(loss: Callable[[Tensor, Tensor], Tensor], probabilities_V: Tensor) -> float:
    """The derivative by the first logit, that of the true token, of one prediction."""
    logits_V = probabilities_V.log().requires_grad_()
    loss(logits_V.unsqueeze(0), torch.zeros(1, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    assert logits_V.grad is not None
    return logits_V.grad[0].abs().item()


def gradients(lab: Lab) -> list[Gradients]:
    """Raises UsageError for settings of a training."""
    if lab.overrides or lab.num_seeds or lab.steps:
        raise UsageError("--gradients trains nothing: leave out --set, --data, --seeds and --steps.")
    return [gradients_at(probability) for probability in PROBABILITIES]


def show_gradients(rows: Sequence[Gradients], console: Console) -> None:
    """Print one row per probability."""
    columns = ("P of the true token", "cross-entropy", "squared error, one wrong token", "squared error, spread")
    shown = [(f"{row.probability:g}", *(f"{value:.4f}" for value in astuple(row)[1:])) for row in rows]
    print_table(console, columns, shown)
    console.print("Absolute derivative by the logit of the true token.")


def plot_gradients(rows: Sequence[Gradients]) -> str:
    """Return an SVG file of the gradients at many probabilities, from the smallest to the largest of `rows`."""
    low, high = (math.log(p / (1 - p)) for p in (rows[0].probability, rows[-1].probability))
    odds = [low + (high - low) * number / (NUM_PLOTTED - 1) for number in range(NUM_PLOTTED)]
    rows = [gradients_at(1 / (1 + math.exp(-log_odds))) for log_odds in odds]
    x = [row.probability for row in rows]
    curves = [
        PlottedCurve(name="cross-entropy", x=x, y=[row.cross_entropy for row in rows]),
        PlottedCurve(name="squared error, one wrong", x=x, y=[row.squared_error_one_wrong for row in rows]),
        PlottedCurve(name="squared error, spread", x=x, y=[row.squared_error_spread for row in rows]),
    ]
    y_axis = Axis(title="gradient at the true token's logit", is_log=True)
    return svg("How hard a wrong prediction is pushed", curves, Axis(title="P of the true token", is_log=True), y_axis)
