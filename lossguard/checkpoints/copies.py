"""Copies: parts of parameters and of optimizers that several ranks hold, as with DistributedDataParallel.

Before a checkpoint is saved, each rank adds up numbers that are 0 in sum where all copies are equal, so the ranks
exchange one number. Only where the sum is not 0 are the copies compared one by one.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lossguard.checkpoints.state import States, dense, leaves, one_thread, paths_compared
from lossguard.run.collectives import is_first_copy, is_sharded, local_part, num_copies
from lossguard.run.ranks import Ranks
from lossguard.vocabulary.wording import plural


@dataclass(slots=True)
class Copies:
    """The copies that one rank holds."""

    digests: dict[str, int] = field(default_factory=dict)
    """Tensor and the place of the part in it -> digest of its bits."""
    balance: int = 0


def copies_in(states: States, ranks: Ranks) -> Copies:
    """Take the digests of what other ranks hold too: parameters, and tensors of optimizers."""
    copies = Copies()
    if ranks.size == 1:
        return copies
    held = [each for name, (instance, state) in states.items() for each in _held(name, instance, state, ranks)]
    with one_thread():
        digests = [_digest(part) for _, part, _, _ in held]
    for (key, _, num, is_first), digest in zip(held, map(int, digests), strict=True):
        copies.digests[key] = digest
        copies.balance += (zlib.crc32(key.encode()) + 1) * digest * (1 - num if is_first else 1)
    return copies


def differing_copies(held: Sequence[Mapping[str, int]]) -> str | None:
    """Name the first copies that differ, with their ranks; `held`: the digests of each rank."""
    differing: list[str] = []
    for key in dict.fromkeys(key for digests in held for key in digests):
        found = {rank: digests[key] for rank, digests in enumerate(held) if key in digests}
        (usual, num), *others = Counter(found.values()).most_common()
        if not others:
            continue
        odd = [rank for rank, digest in found.items() if digest != usual]
        is_majority = num > len(odd)
        named = odd if is_majority else list(found)
        ranks = "rank" + "s" * (len(named) > 1) + " " + ", ".join(map(str, named[:4])) + ", .." * (len(named) > 4)
        differing.append(f"{ranks} and the others differ in {key}" if is_majority else f"{ranks} differ in {key}")
    if not differing:
        return None
    return differing[0] + (f", and in {plural(len(differing) - 1, 'other tensor')}" if len(differing) > 1 else "")


def _held(name: str, instance: Any, state: Any, ranks: Ranks) -> Iterator[tuple[str, Tensor, int, bool]]:
    """Yield name, this rank's part, number of copies, and whether this is the first, of each part with copies."""
    compared = paths_compared(instance, state)
    for path, value in leaves(state):
        if path not in compared:
            continue
        part, num, is_first, place = value, ranks.size, ranks.rank == 0, ""
        if hasattr(value, "with_local"):  # a TensorShard
            part = value.local
            if value.is_first_copy is not None:
                num, is_first, place = value.num_copies, value.is_first_copy, f" from {[*value.chunk.offsets]}"
        elif is_sharded(value):
            (chunk,) = value.__create_chunk_list__()
            num, is_first, place = num_copies(value), is_first_copy(value), f" from {[*chunk.offsets]}"
        if num > 1 and (part := dense(local_part(part))).numel():
            yield f"{name}.{'.'.join(path)}{place}", part, num, is_first


BLOCK = 256
"""Bytes whose words are added up before they get a weight: smaller blocks cost more."""


def _digest(part: Tensor) -> Tensor:
    """A number that every flip of one bit changes, and every exchange of blocks; its cost is that of a sum."""
    data = part.contiguous().view(-1).view(torch.uint8)
    if data.storage_offset() % 8:
        data = data.clone()
    whole = data.numel() - data.numel() % BLOCK
    rest = data[whole:].long()
    digest = (rest * _weights(rest)).sum() + part.dim() + part.numel()
    if whole:
        blocks = data[:whole].view(torch.int64).view(-1, BLOCK // 8).sum(1)
        digest += (blocks * _weights(blocks)).sum()
    return digest


def _weights(values: Tensor) -> Tensor:
    return torch.arange(1, 2 * values.numel() + 1, 2, device=values.device)  # odd: no product of a changed bit is 0
