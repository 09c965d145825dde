"""The state in a checkpoint: objects that can be saved, random generators, every value and its digest."""

import copy
import ctypes
import random
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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


# Modules as checkpoints hold them: under the names that they have without torch.compile and DistributedDataParallel.
#
# So a checkpoint fits the model whether it, or a part of it, is compiled or not, and on any number of ranks.

WRAPPERS = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module"}
"""Classes of modules that add a name to the keys of what they wrap (torch.compile makes the first), and that name."""
WHOLE_STATE_MISSING = {"FullyShardedDataParallel", "DeepSpeedEngine", "DeepSpeedEngineWrapper"}
"""Wrappers whose model and optimizer do not have their own whole state."""


def unwrapped(name: str, instance: Stateful) -> Stateful:
    """Return the part of the object `name` that a checkpoint saves. Raises ValueError if it has no whole state."""
    parts = instance.modules() if isinstance(instance, nn.Module) else [instance]
    kinds = {kind.__name__ for part in parts for kind in type(part).__mro__}
    if unsupported := WHOLE_STATE_MISSING.intersection(kinds):
        raise ValueError(
            f"{name} is a {unsupported.pop()}, which is not supported: shard it with torch's fully_shard, or use DDP"
        )
    return UnwrappedModule(instance) if isinstance(instance, nn.Module) else instance


def keep_types(optimizer: Any, state: Any) -> None:
    """Put back the numbers that `load_state_dict` of an optimizer has cast to the type of their parameter.

    Adafactor, for example, keeps float32 for weights in bfloat16.
    """
    inner = getattr(optimizer, "module", optimizer)
    if not isinstance(state, Mapping) or "param_groups" not in state or not hasattr(inner, "param_groups"):
        return
    parameters = dict(enumerate(each for group in inner.param_groups for each in group["params"]))
    for number, saved in state["state"].items():
        loaded = inner.state.get(parameters.get(number), {})
        for name, value in saved.items():
            present = loaded.get(name)
            are_tensors = isinstance(value, Tensor) and isinstance(present, Tensor)
            if are_tensors and present.dtype != value.dtype:
                loaded[name] = value.to(present.device, copy=True)


class UnwrappedModule:
    """The state of a module, whose parts may be wrapped, also later on."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> Any:
        """The state of the module under the names without wrappers."""
        state = self.module.state_dict()
        plain = self._plain_names()
        return state if plain is None else _renamed(state, plain)

    def load_state_dict(self, state: Any) -> Any:
        """Restore a state into the module as it is wrapped now."""
        plain = self._plain_names()
        if plain is None:
            return self.module.load_state_dict(state)
        now = self.module.state_dict()
        names = {plain(name): name for name in [*getattr(now, "_metadata", ()), *now]}  # of what is inside comes last
        return self.module.load_state_dict(_renamed(state, lambda name: names.get(name, name)))

    def _plain_names(self) -> Callable[[str], str] | None:
        """Gives the name without wrappers; None where nothing is wrapped."""
        added = set()
        for path, part in self.module.named_modules(remove_duplicate=False):
            if inner := next((WRAPPERS[kind.__name__] for kind in type(part).__mro__ if kind.__name__ in WRAPPERS), ""):
                added.add(f"{path}.{inner}".lstrip("."))

        def plain(name: str) -> str:
            parts = name.split(".")
            return ".".join(part for i, part in enumerate(parts) if ".".join(parts[: i + 1]) not in added)

        return plain if added else None


def _renamed(state: Any, name: Callable[[str], str]) -> Any:
    """The state with other names, and with the versions of the modules that it carries."""
    renamed = type(state)((name(key), value) for key, value in state.items())
    if hasattr(state, "_metadata"):
        renamed._metadata = {name(key): version for key, version in state._metadata.items()}
    return renamed


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
    return {".".join(path): _tensor(each) if isinstance(each, Tensor) else repr(each) for path, each in leaves(state)}


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


def _tensor(value: Tensor) -> str:
    local = local_part(value)
    dense = local.to_dense() if local.layout is not torch.strided else local
    dense = dense.resolve_conj().resolve_neg().cpu().contiguous()
    size = dense.numel() * dense.element_size()
    content = (ctypes.c_char * size).from_address(dense.data_ptr()) if size else b""  # the tensor's own memory
    shape = "x".join(map(str, value.shape))
    return f"{str(value.dtype).removeprefix('torch.')}[{shape}] {zlib.crc32(content):08x}"


# The values in a state. The path of a value is its keys, as ("state", "0", "exp_avg").

Path = tuple[str, ...]
PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
"""Types of values that need no copy: most of an optimizer's state by number."""
NUMBERS = frozenset({int, float, bool})


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each value in a state with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, str(place)))
    else:
        yield path, value


def rebuilt(value: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return a state with `change(path, value)` in place of each value; of a list of numbers, a copy."""
    if type(value) in PLAIN:
        return change(path, value)
    if isinstance(value, Mapping):
        copied: Any = copy.copy(value)  # keeps the type, and the version that a module's state carries
        for key, item in value.items():
            copied[key] = rebuilt(item, change, (*path, str(key)))
        return copied
    if type(value) in (list, tuple):
        if NUMBERS.issuperset(map(type, value)):  # a generator's state has hundreds
            return type(value)(value)
        return type(value)(rebuilt(item, change, (*path, str(place))) for place, item in enumerate(value))
    return change(path, value)
