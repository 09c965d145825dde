"""The training step with the gate compared with the same step without it: medians of rounds in one process.

    python -m benchmarks.gate

A step of a small GPT (of some tens of milliseconds) on one thread, by CPU time, so that other processes matter little.
Each round has the plain step twice: their difference is noise. The optimizer is the fused AdamW, which takes the
gate's verdict itself, or the foreach one, of which the gate reads the verdict.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lossguard
from benchmarks.rows import Row, print_rows
from lossguard.torch import Gate, causal_lm_loss
from trainer.config import ModelConfig
from trainer.model import GPT

NUM_ROUNDS = 150
WARM_UP = 40
"""Rounds before, after which the gate has bounds."""
SHAPE = ModelConfig(layers=4, heads=4, width=128, context=128)
B, T, V = 4, SHAPE.context, SHAPE.vocab_size


def measure() -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [_row(fused) for fused in (True, False)]
    torch.set_num_threads(before)
    return rows


def _row(fused: bool) -> Row:
    torch.manual_seed(0)
    model = GPT(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused, foreach=not fused)
    gate = Gate([optimizer], run=lossguard.Run(id="bench"), tell=print)
    tokens_BT = torch.randint(V, (B, T + 1))

    def step(take: Callable[[Tensor, Tensor], object]) -> tuple[float, float]:
        """CPU seconds of the whole step, and of the optimizer's part."""
        began = time.process_time()
        optimizer.zero_grad()
        terms = causal_lm_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        terms.loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        middle = time.process_time()
        take(terms.cross_entropy, norm)
        end = time.process_time()
        return end - began, end - middle

    def plainly(loss: Tensor, norm: Tensor) -> None:
        optimizer.step()

    ways = (plainly, plainly, gate.step)
    times: list[list[tuple[float, float]]] = [[], [], []]
    for number in range(-WARM_UP, NUM_ROUNDS):
        for variant in ((number + offset) % 3 for offset in range(3)):
            seconds = step(ways[variant])
            if number >= 0:
                times[variant].append(seconds)
    plain, again, gated = (statistics.median(whole for whole, _ in each) for each in times)
    both = statistics.median(whole for whole, _ in times[0] + times[1])
    part = statistics.median(part for _, part in times[2]) - statistics.median(part for _, part in times[0] + times[1])
    noise = f"two plain steps differ by {100 * (again / plain - 1):+.2f} %"
    alone = f"the optimizer's part alone: {1e6 * part:+.0f} us, {100 * part / both:+.2f} %"
    comparison = f"without {1e3 * both:.2f} ms, with {1e3 * gated:.2f} ms; {noise}; {alone}"
    name = f"step with the gate, {'fused' if fused else 'foreach'} AdamW: added to the median"
    return Row(name, 100 * (gated / both - 1), "%", 0.5, comparison)


if __name__ == "__main__":
    print_rows(measure())
