"""causal_lm_loss compared with F.cross_entropy, forward and backward on the CPU: its time, and its memory (Linux).

python -m benchmarks.loss

The memory is the growth of a process's peak, given the logits. There, torch computes the same loss, with a z-loss.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import Row, print_rows
from lossguard.torch import causal_lm_loss

SHAPE = (8, 512, 50257)
SMALLER = (2, 512, 50257)
"""For the memory: float32 logits take 196 MiB."""
MAX_MEMORY = {torch.float32: 0.26, torch.bfloat16: 0.12}
"""Relative to torch's."""


def measure(pairs: int = 7) -> Iterator[Row]:
    yield _time(pairs)
    for dtype, most in MAX_MEMORY.items():
        ours, plain = _memory("ours", dtype), _memory("torch", dtype)
        name = f"the same, extra memory beside F.cross_entropy with z-loss at {SMALLER} in {str(dtype)[6:]}"
        yield Row(name, ours / plain, "times its memory", most, f"{ours:.0f} MiB against {plain:.0f} MiB")


def _memory(name: str, dtype: torch.dtype) -> float:
    """MiB of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (name, dtype))


def _growth(name: str, dtype: torch.dtype) -> float:
    logits_BTV = torch.empty(SMALLER, dtype=dtype)
    for row_TV in logits_BTV.view(-1, 32, SMALLER[2]):
        row_TV.normal_()
    targets_BT = torch.randint(SMALLER[2], SMALLER[:2])
    loss = {"ours": _ours, "torch": _plain_with_z_loss}[name]
    loss(targets_BT[:, :1])(logits_BTV[:, :1].clone().requires_grad_()).backward()  # type: ignore[no-untyped-call]
    before = _peak()
    loss(targets_BT)(logits_BTV.requires_grad_()).backward()  # type: ignore[no-untyped-call]
    return _peak() - before


def _peak() -> float:
    """MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _time(pairs: int) -> Row:
    """The ratio of the medians of interleaved pairs in this process."""
    torch.manual_seed(0)
    logits_BTV = torch.randn(SHAPE, requires_grad=True)
    targets_BT = torch.randint(SHAPE[-1], SHAPE[:2])
    plain, ours = _interleaved(pairs, logits_BTV, _plain(targets_BT), _ours(targets_BT))
    name = f"causal_lm_loss with z-loss and log Z relative to F.cross_entropy, forward + backward at {SHAPE}"
    comparison = f"F.cross_entropy {plain:.2f} s, causal_lm_loss {ours:.2f} s (medians of {pairs} interleaved pairs)"
    return Row(name, ours / plain, "times its time", 1.10, comparison)


def _plain(targets_BT: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits_BTV: F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def _plain_with_z_loss(targets_BT: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(logits_BTV: Tensor) -> Tensor:
        logits_NV = logits_BTV.flatten(0, 1).float()
        z_loss = 1e-4 * logits_NV.logsumexp(dim=1).square().mean()
        return F.cross_entropy(logits_NV, targets_BT.flatten()) + z_loss

    return loss


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
