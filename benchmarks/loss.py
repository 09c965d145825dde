"""causal_lm_loss compared with F.cross_entropy, forward and backward on the CPU: its time, and its memory (Linux).

    python -m benchmarks.loss [--pairs 7] [--tokens 512]

The memory is the growth of a process's peak, given the logits. There, torch computes the same loss, with a z-loss.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Row, interleaved, memory_mib, print_rows
from lossguard.torch import causal_lm_loss

VOCABULARY, NUM_TOKENS = 50257, 512
BATCH, SMALLER_BATCH = 8, 2
"""For the time, and for the memory: there, float32 logits take 196 MiB."""
MAX_MEMORY = {torch.float32: 0.26, torch.bfloat16: 0.12}
"""Relative to torch's."""
Loss = Callable[[Tensor], Tensor]


def measure(pairs: int = 7, num_tokens: int = NUM_TOKENS) -> Iterator[Row]:
    yield _time(pairs, (BATCH, num_tokens, VOCABULARY))
    shape = (SMALLER_BATCH, num_tokens, VOCABULARY)
    for dtype, most in MAX_MEMORY.items():
        mine, torchs = (_memory(each, dtype, shape) for each in (ours, plain_with_z_loss))
        name = f"the same, extra memory beside F.cross_entropy with z-loss at {shape} in {str(dtype)[6:]}"
        yield Row(name, mine / torchs, "times its memory", most, f"{mine:.0f} MiB against {torchs:.0f} MiB")


def _time(pairs: int, shape: tuple[int, int, int]) -> Row:
    torch.manual_seed(0)
    logits_BTV = torch.randn(shape, requires_grad=True)
    targets_BT = torch.randint(VOCABULARY, shape[:2])

    def timed(loss: Loss) -> tuple[float]:
        logits_BTV.grad = None
        began = time.perf_counter()
        loss(logits_BTV).backward()  # type: ignore[no-untyped-call]
        return (time.perf_counter() - began,)

    ways = [lambda number, loss=loss: timed(loss) for loss in (_plain(targets_BT), ours(targets_BT))]
    found = interleaved(ways, pairs, 1)  # the first pair warms up the allocator
    theirs, mine = (statistics.median(seconds for (seconds,) in each) for each in found)
    name = f"causal_lm_loss with z-loss and log Z relative to F.cross_entropy, forward + backward at {shape}"
    comparison = f"F.cross_entropy {theirs:.2f} s, causal_lm_loss {mine:.2f} s (medians of {pairs} interleaved pairs)"
    return Row(name, mine / theirs, "times its time", 1.10, comparison)


def _memory(loss: Callable[[Tensor], Loss], dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """MiB of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (loss, dtype, shape))


def _growth(loss: Callable[[Tensor], Loss], dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    logits_BTV = torch.empty(shape, dtype=dtype)
    for row_TV in logits_BTV.view(-1, 32, VOCABULARY):
        row_TV.normal_()
    targets_BT = torch.randint(VOCABULARY, shape[:2])
    loss(targets_BT[:, :1])(logits_BTV[:, :1].clone().requires_grad_()).backward()  # type: ignore[no-untyped-call]
    before = memory_mib(os.getpid(), "VmHWM")
    loss(targets_BT)(logits_BTV.requires_grad_()).backward()  # type: ignore[no-untyped-call]
    return memory_mib(os.getpid(), "VmHWM") - before


def _plain(targets_BT: Tensor) -> Loss:
    return lambda logits_BTV: F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def plain_with_z_loss(targets_BT: Tensor) -> Loss:
    def loss(logits_BTV: Tensor) -> Tensor:
        logits_NV = logits_BTV.flatten(0, 1).float()
        z_loss = 1e-4 * logits_NV.logsumexp(dim=1).square().mean()
        return F.cross_entropy(logits_NV, targets_BT.flatten()) + z_loss

    return loss


def ours(targets_BT: Tensor) -> Loss:
    return lambda logits_BTV: causal_lm_loss(logits_BTV, targets_BT, z_weight=1e-4).loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=NUM_TOKENS, help="of a sequence; a multiple of 32")
    given = parser.parse_args()
    print_rows(measure(given.pairs, given.tokens))
