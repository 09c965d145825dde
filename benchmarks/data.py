"""What a guard adds to each batch of a loop's own data: CPU time of one thread, medians of rounds.

    python -m benchmarks.data

`Drawn` and the random numbers of a stream against the same batches without them, and the digests of the samples.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from benchmarks.rows import Row, print_rows
from lossguard.guard.data.digests import row_digests
from lossguard.guard.data.stream import Stream
from lossguard.torch import Drawn

NUM_ROUNDS, NUM_BATCHES = 60, 20
TARGET = 200.0
"""Microseconds: 1 % of a step of 20 ms."""
TOKENS = torch.arange(1_000_000)


def measure() -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tokens, images = torch.randint(50_000, (12, 1024)), torch.rand(64, 3, 64, 64)
    drawn, stream, plain = Drawn(get_batch), Stream(batches()), batches()
    indices, positions = count(), count()
    costs = {
        "a batch of `Drawn(get_batch)`": lambda: drawn[next(indices)],
        "a batch of a generator": lambda: stream[next(positions)],
        "digests of 12 x 1,024 tokens and their targets": lambda: row_digests((tokens, tokens)),
        "digests of 64 images of 3 x 64 x 64": lambda: row_digests(images),
    }
    alone = microseconds(lambda: next(plain))
    measured = {name: microseconds(cost) for name, cost in costs.items()}
    torch.set_num_threads(before)
    own = f"`get_batch` of 12 x 1,024 tokens itself takes {alone:.0f} us"
    return [
        Row(f"{name}: added", us - ("batch" in name) * alone, "us", TARGET, own if "batch" in name else "")
        for name, us in measured.items()
    ]


def get_batch() -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(TOKENS) - 1025, (12,)).tolist()
    return torch.stack([TOKENS[k : k + 1024] for k in starts]), torch.stack([TOKENS[k + 1 : k + 1025] for k in starts])


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield get_batch()


def microseconds(action: Callable[[], object]) -> float:
    """CPU time of one `action`."""
    times = []
    for _ in range(NUM_ROUNDS):
        began = time.thread_time()
        for _ in range(NUM_BATCHES):
            action()
        times.append((time.thread_time() - began) / NUM_BATCHES)
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    print_rows(measure())
