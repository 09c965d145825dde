"""causal_lm_loss compared with plain F.cross_entropy, forward and backward at (8, 512, 50257) on the CPU.

python -m benchmarks.loss
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import Row, print_rows
from lossguard.torch import causal_lm_loss

SHAPE = (8, 512, 50257)


def measure(pairs: int = 7) -> list[Row]:
    """The ratio of the medians of interleaved pairs in this process."""
    torch.manual_seed(0)
    logits_BTV = torch.randn(SHAPE, requires_grad=True)
    targets_BT = torch.randint(SHAPE[-1], SHAPE[:2])
    plain, ours = _interleaved(pairs, logits_BTV, _plain(targets_BT), _ours(targets_BT))
    name = f"causal_lm_loss with z-loss and log Z relative to F.cross_entropy, forward + backward at {SHAPE}"
    comparison = f"F.cross_entropy {plain:.2f} s, causal_lm_loss {ours:.2f} s (medians of {pairs} interleaved pairs)"
    return [Row(name, ours / plain, "times its time", 1.10, comparison)]


def _plain(targets_BT: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits_BTV: F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def _ours(targets_BT: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits_BTV: causal_lm_loss(logits_BTV, targets_BT, z_weight=1e-4).loss


def _interleaved(pairs: int, logits: Tensor, *losses: Callable[[Tensor], Tensor]) -> list[float]:
    times: list[list[float]] = [[] for _ in losses]
    for pair in range(pairs + 1):  # the first pair warms up the allocator
        for loss, seconds in zip(losses, times, strict=True):
            logits.grad = None
            began = time.perf_counter()
            loss(logits).backward()  # type: ignore[no-untyped-call]
            if pair:
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in times]


if __name__ == "__main__":
    print_rows(measure())
