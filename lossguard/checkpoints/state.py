"""The state in a checkpoint: objects that can be saved, its certificate, random generators, a digest of every value."""

import ctypes
import math
import random
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lossguard.run.collectives import local_part
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
    """Of another object, 0. Before the first step there are no moments: Adam will have two, and SGD at most one."""
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


# The certificate of a checkpoint: its state is worth returning to.

CERTIFICATE = {"finite": True, "second_moments": "not negative", "step_counts": "whole"}
"""Entry of a manifest that names what was checked."""
SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
"""Names of tensors in an optimizer's state that are means of squares."""
Extremes = list[tuple[str, str, float, float]]
"""Object, path, smallest and largest value of each tensor; a NaN makes both NaN."""


def damage_in(states: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Return why no run should be restored from these states, or None; `states`: name -> object, and its state.

    A NaN is refused in every tensor, and an infinity in parameters and in optimizers (masks in buffers are infinite).
    Second moments must not be negative, and step counts must be whole. Costs about a tenth of a copy of the state.
    """
    optimizers = {name for name, (_, state) in states.items() if isinstance(state, Mapping) and "param_groups" in state}
    buffers = {name: _buffers_of(instance) for name, (instance, _) in states.items()}
    for name, path, low, high in _extremes(states):
        key = path.rpartition(".")[2]
        if math.isnan(low):
            return f"{name}.{path} holds NaN"
        masks = buffers[name]
        is_parameter = name in optimizers or (masks is not None and key not in masks)
        if is_parameter and math.inf in (-low, high):
            return f"{name}.{path} holds an infinity"
        if name in optimizers and key in SECOND_MOMENTS and low < 0:
            return f"{name}.{path} is a second moment and holds {low:.3g}"
        if name in optimizers and key == "step" and (low < 0 or low % 1):
            return f"{name}.{path} counts {low:.6g} steps"
    return None


def _buffers_of(instance: Any) -> set[str] | None:
    """The last names of the buffers of a module, without those that a parameter has too; None: it is no module."""
    module = getattr(instance, "module", instance)
    if not isinstance(module, nn.Module):
        return None
    parameters, buffers = (
        {name.rpartition(".")[2] for name, _ in found} for found in (module.named_parameters(), module.named_buffers())
    )
    return buffers - parameters


def _extremes(states: Mapping[str, tuple[Any, Any]]) -> Extremes:
    """Measure all floating tensors; one transfer for all those of a device and a type."""
    found: dict[tuple[torch.device, torch.dtype], list[tuple[str, str, Tensor]]] = {}
    for name, (_, state) in states.items():
        for path, value in _leaves(state, ()):
            if (extremes := _extremes_of(value)) is not None:
                found.setdefault((extremes.device, extremes.dtype), []).append((name, ".".join(path), extremes))
    return [
        (name, path, low, high)
        for group in found.values()
        for (name, path, _), (low, high) in zip(group, torch.stack([each[2] for each in group]).tolist(), strict=True)
    ]


def _extremes_of(value: Any) -> Tensor | None:
    """The smallest and the largest value of this rank's part; None for what holds no floating numbers."""
    value = value.local if hasattr(value, "with_local") else value  # a TensorShard
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return None
    numbers = local_part(value)
    if numbers.layout is not torch.strided:
        numbers = numbers.to_dense()
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers.resolve_conj())
    if numbers.numel() == 0:
        return None
    if numbers.element_size() == 1:  # float8 has no such kernel
        numbers = numbers.float()
    return torch.stack(torch.aminmax(numbers))


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
            f"{name} differs from the checkpoint of step {step}: {differing[0]}{more}; "
            "continuing would train a different run, so training stops here"
        )


def _walk(state: Any) -> Iterator[tuple[str, str]]:
    for path, value in _leaves(state, ()):
        yield ".".join(path), _tensor(value) if isinstance(value, Tensor) else repr(value)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value in a state with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _leaves(item, (*path, str(place)))
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
