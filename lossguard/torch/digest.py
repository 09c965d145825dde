"""A digest of each value in a state, cheap enough to be compared after every restore.

The digest of a tensor is its dtype, its shape and the CRC-32 of its bytes (some GB/s; for a sharded tensor, of this
rank's bytes). The digest of any other value is its repr.
"""

import ctypes
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lossguard.errors import CheckpointMismatch
from lossguard.torch.dtensor import local_part

Digest = dict[str, str]
"""Path of a value, as "state.0.exp_avg" or "param_groups.0.lr" -> its digest."""


def digest(state: Any) -> Digest:
    """The digest of every value in `state`."""
    return dict(_walk(state, ()))


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


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _walk(item, (*path, str(place)))
    else:
        yield ".".join(path), _tensor(value) if isinstance(value, Tensor) else repr(value)


def _tensor(value: Tensor) -> str:
    local = local_part(value)
    dense = local.to_dense() if local.layout is not torch.strided else local
    dense = dense.resolve_conj().resolve_neg().cpu().contiguous()
    size = dense.numel() * dense.element_size()
    content = (ctypes.c_char * size).from_address(dense.data_ptr()) if size else b""  # the tensor's own memory
    shape = "x".join(map(str, value.shape))
    return f"{str(value.dtype).removeprefix('torch.')}[{shape}] {zlib.crc32(content):08x}"
