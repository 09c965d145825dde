"""The state in a checkpoint: objects that can be saved, its certificate, random generators, a digest of every value."""

import ctypes
import math
import random
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lossguard.run.collectives import is_sharded, local_part
from lossguard.run.ranks import Ranks
from lossguard.vocabulary.errors import CheckpointMismatch

# Objects that can be saved.


class Stateful(Protocol):
    """Any object with a state: modules, optimizers, schedules, samplers, and the user's own classes.

    The state contains only tensors and plain values, and `load_state_dict` restores all of it: `state_dict` must return
    the saved state afterwards.
    """

    def state_dict(self) -> Any:
        """The whole state."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore a state."""


def expected_bytes(objects: Iterable[Any]) -> int:
    """About how many bytes the modules and optimizers among `objects` have once each optimizer has taken a step."""
    modules = (getattr(each, "module", each) for each in objects)
    return sum(_bytes_of_module(each) if isinstance(each, nn.Module) else _bytes_of_optimizer(each) for each in modules)


def _bytes_of_module(module: nn.Module) -> int:
    tensors = {id(each): each for each in module.state_dict(keep_vars=True).values()}  # tied ones once
    return sum(map(_num_bytes, tensors.values()))


def _bytes_of_optimizer(optimizer: Any) -> int:
    """Return 0 for another object. Before the first step, count the moments to come: two of Adam, one of SGD."""
    groups = getattr(optimizer, "param_groups", ())
    if groups and optimizer.state:
        return sum(_num_bytes(each) for values in optimizer.state.values() for each in values.values())
    return sum(
        _num_bytes(parameter) * (2 if "betas" in group else 1 if group.get("momentum") else 0)
        for group in groups
        for parameter in group["params"]
        if parameter.requires_grad
    )


def _num_bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


# The certificate of a checkpoint: its state is worth returning to. `copies` compares what several ranks hold, and
# `lossguard.spool.band` judges the loss and the gradient norm.

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
Extremes = list[tuple[str, str, float, float]]
"""Object, path, smallest and largest value of each tensor; a NaN makes both NaN."""


# The numbers of one rank.


def damage_in(
    states: States, counts: "OptimizerStepCounts | None" = None, step: int = 0, ranks: Ranks | None = None
) -> str | None:
    """Return why no run should be restored from these states, or None.

    A NaN is refused in every tensor, and an infinity in parameters and in optimizers (masks in buffers are infinite).
    Second moments must not be negative, and step counts must be whole; `counts`: those before `step`, to compare with.
    `ranks`: of a tensor that all of them hold, one looks at the numbers; the others compare their bits (`copies_in`).
    """
    optimizers = {name for name, (_, state) in states.items() if _is_of_optimizer(state)}
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


def _is_of_optimizer(state: Any) -> bool:
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


def _extremes(states: States, ranks: Ranks) -> Extremes:
    """Measure the floating tensors; one transfer for all those of a device and a type."""
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
    if _is_of_optimizer(state):
        return {path for path in tensors if path[0] == "state"}
    parameters, _ = _names_in(instance)
    return {path for path in tensors if path[-1].rpartition(".")[2] in parameters}


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


# Random number generators: of Python, NumPy (where it is imported) and torch.


def generators() -> dict[str, Any]:
    """The states of the generators, as plain values and tensors."""
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, keys.tolist(), *rest]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """Undo `generators`. CUDA generators are restored if the number of devices is the same."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in states:
        numpy.random.set_state(tuple(states["numpy"]))
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


# A digest of each value in a state, cheap enough to be compared after every restore.
#
# The digest of a tensor is its dtype, its shape and the CRC-32 of its bytes (some GB/s; for a sharded tensor, of this
# rank's bytes). The digest of any other value is its repr.

Digest = dict[str, str]
"""Path of a value, as "state.0.exp_avg" or "param_groups.0.lr" -> its digest."""


def digest(state: Any) -> Digest:
    """The digest of every value in `state`."""
    return dict(_walk(state))


def differences(saved: Digest, found: Digest) -> list[str]:
    """One phrase for each value that differs, in the order in which they were saved."""
    paths = [*saved, *(path for path in found if path not in saved)]
    return [
        f"{path} was {saved.get(path, 'absent')} and is {found.get(path, 'absent')}"
        for path in paths
        if saved.get(path) != found.get(path)
    ]


def check_digests(name: str, step: int, saved: Digest, found: Digest) -> None:
    """Raise CheckpointMismatch if the restored object `name` is not the saved one."""
    differing = differences(saved, found)
    if differing:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise CheckpointMismatch(
            f"{name} differs from the checkpoint of step {step}: {differing[0]}{more}; training stops here"
        )


def _walk(state: Any) -> Iterator[tuple[str, str]]:
    for path, value in leaves(state):
        yield ".".join(path), _tensor(value) if isinstance(value, Tensor) else repr(value)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value in a state with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, str(place)))
    else:
        yield path, value


def _tensor(value: Tensor) -> str:
    local = local_part(value)
    dense = local.to_dense() if local.layout is not torch.strided else local
    dense = dense.resolve_conj().resolve_neg().cpu().contiguous()
    size = dense.numel() * dense.element_size()
    content = (ctypes.c_char * size).from_address(dense.data_ptr()) if size else b""  # the tensor's own memory
    shape = "x".join(map(str, value.shape))
    return f"{str(value.dtype).removeprefix('torch.')}[{shape}] {zlib.crc32(content):08x}"
