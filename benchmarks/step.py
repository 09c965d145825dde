"""The instrumented training step against the same step with no Lossguard at all: pairs in one process, medians.

    python -m benchmarks.step

A GPT-like step of some tens of milliseconds on the CPU; the instrumented one logs eight metrics while the sender
delivers to a sink in another process.
"""

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

NUM_PAIRS = 150
B, T, C, V = 8, 64, 256, 512


def measure() -> list[Row]:
    torch.manual_seed(0)
    step = _training_step()
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        run = lossguard.init("bench", url=running.url, directory=folder)
        plain, ours = _pairs(step, run)
        run.finish()
    added = 100 * statistics.median(with_log / without - 1 for without, with_log in zip(plain, ours, strict=True))
    without, with_log = (1e3 * statistics.median(times) for times in (plain, ours))
    comparison = f"without {without:.2f} ms, with {with_log:.2f} ms (medians of {NUM_PAIRS} pairs)"
    return [
        Row("instrumented step: added to its median", 100 * (with_log / without - 1), "%", 2.0, comparison),
        Row("instrumented step: median of the pairs' differences", added, "%", 2.0, comparison),
    ]


def _pairs(step: Callable[[], dict[str, Any]], run: lossguard.Run) -> tuple[list[float], list[float]]:
    """Seconds without and with `run.log`; which of a pair goes first alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(NUM_PAIRS + 5):
        for instrumented in (pair % 2, 1 - pair % 2):
            began = time.perf_counter()
            metrics = step()
            if instrumented:
                run.log(pair, **metrics)
            if pair >= 5:  # the first ones warm up
                times[instrumented].append(time.perf_counter() - began)
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
