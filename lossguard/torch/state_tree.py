"""States split into their tensors and everything else, and joined again.

The path of a value is its keys joined by dots, as "optimizer.state.0.exp_avg".
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lossguard.torch.tensor_shard import TensorShard


def split_tensors(name: str, state: Any, *, keep_scalars: bool = False) -> tuple[Any, dict[str, TensorShard]]:
    """The state with None in place of each tensor, and the tensors by path.

    `keep_scalars`: tensors of no dimension, such as an optimizer's step counts, stay where they are.
    """
    shards: dict[str, TensorShard] = {}

    def remove(path: str, value: Any) -> Any:
        if isinstance(value, TensorShard) or (isinstance(value, Tensor) and not (keep_scalars and value.dim() == 0)):
            shards[path] = value if isinstance(value, TensorShard) else TensorShard.of(value)
            return None
        return value

    return _rebuild(name, state, remove), shards


def join_tensors(name: str, skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `split_tensors`."""
    return _rebuild(name, skeleton, lambda path, value: tensors.get(path, value))


def tensors_in(name: str, state: Any) -> dict[str, Tensor]:
    """The tensors of a state, by path."""
    found: dict[str, Tensor] = {}

    def note(path: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            found[path] = value
        return None

    _rebuild(name, state, note)
    return found


def _rebuild(path: str, value: Any, change: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, Mapping):
        rebuilt: Any = copy.copy(value)  # keeps the type, and the version that a module's state carries
        for key, item in value.items():
            rebuilt[key] = _rebuild(f"{path}.{key}", item, change)
        return rebuilt
    if type(value) in (list, tuple):
        return type(value)(_rebuild(f"{path}.{place}", item, change) for place, item in enumerate(value))
    return change(path, value)
