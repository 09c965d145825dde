"""The instrumented training step compared with the same step without Lossguard: medians of rounds in one process.

    python -m benchmarks.step

A GPT-like step of some tens of milliseconds on half of the cores; the instrumented step logs eight metrics while the
sender delivers to a sink in another process. Each round has the plain step twice: their difference is noise.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lossguard
from benchmarks.rows import Row, print_rows
from benchmarks.sink import sink

NUM_ROUNDS = 120
NUM_THREADS = max(1, (os.cpu_count() or 2) // 2)
B, T, C, V = 8, 64, 256, 512


def measure() -> list[Row]:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        run = lossguard.init("bench", url=running.url, directory=folder)
        plain, again, ours = (statistics.median(times) for times in _rounds(_training_step(), run))
        run.finish()
    torch.set_num_threads(before)
    noise = 100 * (again / plain - 1)
    comparison = f"without {1e3 * plain:.2f} ms, with {1e3 * ours:.2f} ms; two plain steps differ by {noise:+.2f} %"
    return [Row("instrumented step: added to the median", 100 * (ours / plain - 1), "%", 2.0, comparison)]


def _rounds(step: Callable[[], dict[str, Any]], run: lossguard.Run) -> list[list[float]]:
    """Seconds of the plain step, of the plain step again, and with `run.log`; which comes first rotates."""
    times: list[list[float]] = [[], [], []]
    for number in range(NUM_ROUNDS + 5):
        for variant in ((number + offset) % 3 for offset in range(3)):
            began = time.perf_counter()
            metrics = step()
            if variant == 2:
                run.log(number, **metrics)
            if number >= 5:  # the first rounds warm up
                times[variant].append(time.perf_counter() - began)
    return times


def _training_step() -> Callable[[], dict[str, Any]]:
    layer = nn.TransformerEncoderLayer(C, 4, 4 * C, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(V, C), "blocks": nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens_BT = torch.randint(V, (B, T + 1))
    mask_TT = nn.Transformer.generate_square_subsequent_mask(T)

    def forward() -> Tensor:
        hidden_BTC = model["blocks"](model["embedding"](tokens_BT[:, :-1]), mask=mask_TT, is_causal=True)
        logits_BTV = hidden_BTC @ model["embedding"].weight.T
        return F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())

    def step() -> dict[str, Any]:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value = loss.item()
        metrics = {"loss": value, "grad_norm": norm, "lr": 1e-4, "tokens": B * T}
        return metrics | {"log_z": loss.detach(), "log_z_max": 12.5, "z_loss": 0.01, "step_seconds": 0.05}

    return step


if __name__ == "__main__":
    print_rows(measure())
