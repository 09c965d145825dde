"""Messages and bytes of gloo's collectives and of `lossguard.run.collectives`, counted exactly. Pure functions.

gloo/transport/tcp/pair.cc: for each message the sender announces it and the receiver says that it is ready, each with a
header of HEADER bytes; then the content follows, with a header of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

HEADER = 48
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one operation costs the rank that sends most, and how long the chain of messages is."""

    messages: int
    """Sent by the rank that sends most of them."""
    sent: int
    """Bytes that this operation has all ranks send together, headers included."""
    most: int
    """Bytes through the busiest rank: sent and received content, without headers."""
    hops: int
    """Messages one after another, from the beginning to the moment when the last rank is done."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.messages + other.messages, self.sent + other.sent, self.most + other.most, self.hops + other.hops
        )

    def times(self, count: int) -> "Traffic":
        """The same operation so many times, one after another."""
        return Traffic(self.messages * count, self.sent * count, self.most * count, self.hops * count)


NOTHING = Traffic(0, 0, 0, 0)


def total(num_messages: int, content: int) -> int:
    """Bytes sent for so many messages with so many bytes of content altogether."""
    return 3 * HEADER * num_messages + content


def rounds(ranks: int) -> int:
    """log2 of the number of ranks, rounded up."""
    return (ranks - 1).bit_length()


def all_gather(ranks: int, part: int) -> Traffic:
    """gloo/allgather.cc: every part travels around a ring, in two halves. `part`: bytes of each rank."""
    messages, content = 2 * (ranks - 1), (ranks - 1) * part
    return Traffic(messages, total(ranks * messages, ranks * content), 2 * content, ranks - 1)


def all_reduce(ranks: int, size: int, element: int = 8) -> Traffic:
    """gloo/allreduce.cc (ring): every non-empty segment travels around twice, except for the last hop."""
    if ranks == 1:
        return NOTHING
    length = -(-size // (2 * ranks))
    length = -(-length // element) * element
    chunks = [_segments(size, length, 2 * chunk) for chunk in range(ranks)]
    num, content = sum(count for count, _ in chunks), sum(size for _, size in chunks)
    num_sent = [2 * num - chunks[rank][0] - chunks[rank - 1][0] for rank in range(ranks)]
    sizes = [2 * content - chunks[rank][1] - chunks[rank - 1][1] for rank in range(ranks)]
    return Traffic(max(num_sent), total(sum(num_sent), sum(sizes)), 2 * max(sizes), 2 * (ranks - 1))


def _segments(size: int, length: int, first: int) -> tuple[int, int]:
    """Number and bytes of the non-empty ones of two segments of a buffer."""
    sizes = [min(length, size - segment * length) for segment in (first, first + 1)]
    return sum(each > 0 for each in sizes), sum(max(0, each) for each in sizes)


def broadcast(ranks: int, size: int) -> Traffic:
    """gloo/broadcast.cc: a binomial tree."""
    return Traffic(rounds(ranks), total(ranks - 1, (ranks - 1) * size), rounds(ranks) * size, rounds(ranks))


def broadcast_object(ranks: int, size: int) -> Traffic:
    """torch sends the length, then the pickle of `size` bytes."""
    return broadcast(ranks, 8) + broadcast(ranks, size)


def linear(ranks: int, part: int) -> Traffic:
    """gloo/gather.cc and scatter.cc: rank 0 receives from, or sends to, each of the others."""
    return Traffic(ranks - 1, total(ranks - 1, (ranks - 1) * part), (ranks - 1) * part, 1)


def gather_object_by_torch(ranks: int, size: int) -> Traffic:
    """dist.gather_object: the lengths go to all ranks, then the pickles to rank 0."""
    return all_gather(ranks, 8) + linear(ranks, size)


def scatter_object_by_torch(ranks: int, size: int) -> Traffic:
    """dist.scatter_object_list: the largest length to all ranks, then the pickles and their lengths."""
    return broadcast(ranks, 8) + linear(ranks, size) + linear(ranks, 8)


def maxima(ranks: int, num: int) -> Traffic:
    """`collectives.maxima` of so many integers: every rank sends one message in each round."""
    count = rounds(ranks)
    return Traffic(count, total(ranks * count, ranks * count * 8 * num), 2 * count * 8 * num, count)


def gather_on_rank_0(ranks: int, size: Callable[[int], int]) -> Traffic:
    """`collectives.gather_on_rank_0`: `size` gives the bytes of what a rank sends that has collected from `n` ranks."""
    sizes = [size(min(rank & -rank, ranks - rank)) for rank in range(1, ranks)]
    at_rank_0 = sum(size(min(1 << each, ranks - (1 << each))) for each in range(rounds(ranks)))
    content = sum(sizes) + 8 * (ranks - 1)
    return Traffic(2, total(2 * (ranks - 1), content), at_rank_0, 2 * rounds(ranks))
