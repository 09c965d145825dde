"""Healthy small runs of different shapes: does anything call them sick? Each row of the table is one kind of model.

python -m benchmarks.small_runs                 36 runs of 400 steps: about four minutes on two cores
"""

import argparse
import sysconfig
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from monitor.backtesting.backtest import backtest_rows
from monitor.detection import Rows
from monitor.detection.rows import Floats

CONTEXT = 32  # bytes
MODELS = ("transformer", "lstm", "perceptron")
SHAPES = ((32, 1), (64, 2))  # (width, layers)
OPTIMIZERS = ("adamw", "sgd")
RATES = (1e-3, 3e-3, 1e-2)


class SmallModel(nn.Module):
    """Predicts the next byte."""

    def __init__(self, model: str, width: int, layers: int) -> None:
        super().__init__()
        self.bytes, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.model, self.out = model, nn.Linear(width, 256)
        self.body: nn.Module
        if model == "transformer":
            layer = nn.TransformerEncoderLayer(width, width // 16, 4 * width, 0.0, batch_first=True, norm_first=True)
            self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        elif model == "lstm":
            self.body = nn.LSTM(width, width, layers, batch_first=True)
        else:
            self.body = nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)])

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.bytes(tokens) + self.positions(torch.arange(CONTEXT))
        if self.model == "transformer":
            hidden = self.body(hidden, mask=nn.Transformer.generate_square_subsequent_mask(CONTEXT), is_causal=True)
        else:
            hidden = self.body(hidden)
            hidden = hidden[0] if self.model == "lstm" else hidden
        logits: Tensor = self.out(hidden)
        return logits


def train(seed: int, model: SmallModel, optimizer: str, rate: float, data: Tensor, steps: int) -> Rows:
    """A loop that knows nothing of Lossguard: no z-loss, and a warm-up in half of the runs."""
    rate *= 1 if optimizer == "adamw" else 30
    make = torch.optim.AdamW if optimizer == "adamw" else lambda each, lr: torch.optim.SGD(each, lr=lr, momentum=0.9)
    algorithm = make(model.parameters(), lr=rate)
    batch, warmup = (4, 16)[seed % 2], (0, 30)[seed // 2 % 2]
    numbers: Floats = np.empty((4, steps))
    for step in range(steps):
        algorithm.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / (warmup + 1))
        first = torch.randint(0, len(data) - CONTEXT - 1, (batch, 1)) + torch.arange(CONTEXT)
        logits = model(data[first])
        loss = functional.cross_entropy(logits.flatten(0, 1), data[first + 1].flatten())
        algorithm.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        algorithm.step()
        log_z = logits.detach().logsumexp(-1).mean()
        numbers[:, step] = [loss.item(), norm.item(), log_z.item(), algorithm.param_groups[0]["lr"]]
    loss_, norm_, log_z_, _ = numbers
    return Rows.of(range(steps), loss=loss_, grad_norm=norm_, log_z=log_z_)


def report(steps: int) -> Iterator[str]:
    torch.set_num_threads(1)
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:400_000]
    data = torch.tensor(list(text))
    yield "| model | runs | with a false incident | with log_z_drift | with a false action |\n|---|---|---|---|---|"
    seed = 0
    for name in MODELS:
        runs = incidents = drifts = actions = 0
        for (width, layers), rate, optimizer in product(SHAPES, RATES, OPTIMIZERS):
            torch.manual_seed(seed)
            rows = train(seed, SmallModel(name, width, layers), optimizer, rate, data, steps)
            found = backtest_rows(rows)["incidents"]
            runs, seed, incidents = runs + 1, seed + 1, incidents + bool(found)
            drifts += any(each["kind"] == "log_z_drift" for each in found)
            actions += any(each["action"]["kind"] != "none" for each in found)
        yield f"| {name} | {runs} | {incidents} | {drifts} | {actions} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_runs", description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    for line in report(parser.parse_args().steps):
        print(line, flush=True)
