"""The certificate of a checkpoint: its state is worth returning to.

The numbers of each rank are looked at, the step counts of optimizers, and the copies that several ranks hold, as with
DistributedDataParallel; `lossguard.spool.band` judges the loss and the gradient norm.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lossguard.checkpoints.state import leaves
from lossguard.run.collectives import is_first_copy, is_sharded, local_part, num_copies
from lossguard.run.ranks import Ranks
from lossguard.vocabulary.wording import plural

CERTIFICATE = {
    "finite": True,
    "second_moments": "not negative",
    "step_counts": "whole, and none has grown more than the run",
    "copies": "equal on all ranks",
    "loss_and_grad_norm": "in the band of the run, where they were recorded",
}
"""Entry of a manifest that names what was checked."""
SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
"""Names of tensors in an optimizer's state that are means of squares."""
States = Mapping[str, tuple[Any, Any]]
"""Name -> an object, and its state."""


def damage_in(
    states: States, counts: "OptimizerStepCounts | None" = None, step: int = 0, ranks: Ranks | None = None
) -> str | None:
    """Return why no run should be restored from these states, or None.

    A NaN is refused in every tensor, and an infinity in parameters and in optimizers (masks in buffers are infinite).
    Second moments must not be negative, and step counts must be whole; `counts`: those before `step`, to compare with.
    `ranks`: of a tensor that all of them hold, one looks at the numbers; the others compare their bits (`copies_in`).
    """
    optimizers = {name for name, (_, state) in states.items() if is_of_optimizer(state)}
    names = {name: _names_in(instance) for name, (instance, _) in states.items()}
    found: dict[str, dict[str, float]] = {}
    for name, path, low, high in _extremes(states, ranks or Ranks()):
        key = path.rpartition(".")[2]
        if math.isnan(low):
            return f"{name}.{path} holds NaN"
        parameters, buffers = names[name]
        is_parameter = name in optimizers or key in parameters or (bool(parameters) and key not in buffers)
        if is_parameter and math.inf in (-low, high):
            return f"{name}.{path} holds an infinity"
        if name in optimizers and key in SECOND_MOMENTS and low < 0:
            return f"{name}.{path} is a second moment and holds {low:.3g}"
        if name in optimizers and key == "step":
            if low < 0 or low % 1:
                return f"{name}.{path} counts {low:.6g} steps"
            found.setdefault(name, {})[path] = low
    return None if counts is None else counts.unexplained(step, found)


def is_of_optimizer(state: Any) -> bool:
    """Return True if this is the state of an optimizer."""
    return isinstance(state, Mapping) and "param_groups" in state


def _names_in(instance: Any) -> tuple[set[str], set[str]]:
    """The last names of the parameters of a module and of its buffers; none: it is no module."""
    module = getattr(instance, "module", instance)
    if not isinstance(module, nn.Module):
        return set(), set()
    parameters, buffers = (
        {name.rpartition(".")[2] for name, _ in found} for found in (module.named_parameters(), module.named_buffers())
    )
    return parameters, buffers


def _extremes(states: States, ranks: Ranks) -> list[tuple[str, str, float, float]]:
    """Return object, path, smallest and largest value of each floating tensor; a NaN makes both NaN.

    It takes one transfer for all those of a device and a type.
    """
    found: dict[tuple[torch.device, torch.dtype], list[tuple[str, str, Tensor]]] = {}
    with one_thread():
        for name, (instance, state) in states.items():
            compared = paths_compared(instance, state) if ranks.size > 1 else set()
            for path, value in leaves(state):
                if path in compared and _is_whole(value) and zlib.crc32(str(path).encode()) % ranks.size != ranks.rank:
                    continue
                if (extremes := _extremes_of(value)) is not None:
                    found.setdefault((extremes.device, extremes.dtype), []).append((name, ".".join(path), extremes))
    return [
        (name, path, low, high)
        for group in found.values()
        for (name, path, _), (low, high) in zip(group, torch.stack([each[2] for each in group]).tolist(), strict=True)
    ]


def paths_compared(instance: Any, state: Any) -> set[tuple[str, ...]]:
    """Paths of the tensors that must be equal on all ranks: a module's parameters, and what an optimizer keeps of them.

    Not of buffers: of the statistics of BatchNorm, for example, each rank has its own.
    """
    tensors = (path for path, value in leaves(state) if isinstance(value, Tensor) or hasattr(value, "with_local"))
    if is_of_optimizer(state):
        return {path for path in tensors if path[0] == "state"}
    parameters, _ = _names_in(instance)
    return {path for path in tensors if path and path[-1].rpartition(".")[2] in parameters}


def _is_whole(value: Any) -> bool:
    """Return True if each rank holds all of this tensor, whose numbers are worth dividing the work."""
    return getattr(value, "is_first_copy", None) is None and not is_sharded(value) and value.size() != torch.Size()


def _extremes_of(value: Any) -> Tensor | None:
    """The smallest and the largest value of this rank's part; None for what holds no floating numbers."""
    value = value.local if hasattr(value, "with_local") else value  # a TensorShard
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return None
    numbers = dense(local_part(value))
    if numbers.numel() == 0:
        return None
    if numbers.element_size() == 1:  # float8 has no such kernel
        numbers = numbers.float()
    return torch.stack(torch.aminmax(numbers))


def dense(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, of complex ones both parts."""
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch use one thread of the CPU: more of them read memory hardly faster, and busily wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, as torch's own loaders do it
    try:
        yield
    finally:
        torch.set_num_threads(before)


class OptimizerStepCounts:
    """The step counts of each optimizer at the newest state that was examined: they say what the next ones may be.

    They need not be equal: a parameter that is unused or frozen at times, or added later, counts fewer steps.
    """

    def __init__(self) -> None:
        self._known: tuple[int, dict[str, dict[str, float]]] = 0, {}

    def forget(self) -> None:
        """A state was restored."""
        self._known = 0, {}

    def unexplained(self, step: int, found: dict[str, dict[str, float]]) -> str | None:
        """Name a count that cannot be that of `step`; without one, remember those that were `found`, by optimizer.

        Since the last time a count must have grown by 0 up to the number of steps of the run, or as much as another one
        of its optimizer (there may be several updates a step), unless it began anew meanwhile. Where no other one has
        grown, a multiple of the number of steps will do.
        """
        since, known = self._known
        if step <= since and known:
            return None
        for name, counts in found.items():
            before = known.get(name, {})
            growths = {path: counts[path] - before[path] for path in counts.keys() & before.keys()}
            shared = [growth for growth, num in Counter(growths.values()).items() if num > 1]
            most = max(step - since, *shared) if shared else step - since
            for path, growth in growths.items():
                if 0 <= growth <= most or counts[path] <= most:
                    continue
                is_alone = not any(other > 0 for at, other in growths.items() if at != path)
                if not (is_alone and growth > 0 and growth % (step - since) == 0):
                    since_then = f"{before[path]:.0f} at step {since}"
                    return f"{name}.{path} counts {counts[path]:.0f} steps at step {step}, and {since_then}"
        self._known = step, found
        return None


# Copies: parts of parameters and of optimizers that several ranks hold.
#
# Before a checkpoint is saved, each rank adds up numbers that are 0 in sum where all copies are equal, so the ranks
# exchange one number. Only where the sum is not 0 are the copies compared one by one.


def copies_in(states: States, ranks: Ranks) -> tuple[dict[str, int], int]:
    """Take the digests of what other ranks hold too: parameters, and tensors of optimizers.

    Returns the digests of the bits, by tensor and the place of the part in it, and the number of this rank.
    """
    digests: dict[str, int] = {}
    balance = 0
    if ranks.size == 1:
        return digests, balance
    held = [each for name, (instance, state) in states.items() for each in _held(name, instance, state, ranks)]
    with one_thread():
        found = [_digest(part) for _, part, _, _ in held]
    for (key, _, num, is_first), digest in zip(held, map(int, found), strict=True):
        digests[key] = digest
        balance += (zlib.crc32(key.encode()) + 1) * digest * (1 - num if is_first else 1)
    return digests, balance


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
