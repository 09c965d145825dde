"""A digest of each sample of a batch, by which samples are recognised when they come again.

A sample is a row: what the tensors (or arrays) of a batch hold at one place of their first dimension. Its digest is the
sum of its values, each times a fixed odd number, modulo 2**64. That takes a few operations on the tensor's own device.
Tensors without rows, of one dimension, are one sample. Where there are no tensors, texts and plain values are digested.

B: rows; N: values of a row.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from random import Random
from typing import Any

from lossguard.spool.device_scalars import HostCopy

MAX_VALUES, MIN_ROW_VALUES = 1 << 16, 64
"""Values of a tensor that are read, evenly spaced, if it has more; at least so many of each row."""
MAX_LIST = 256
"""Elements of a plain list that are read, evenly spaced, if it has more."""
PLAIN = (str, bytes, int, float, bool, type(None))
MAX_NESTING = 4
"""Levels of lists, mappings and objects in which tensors are looked for."""
FACTOR = 0x5851F42D4C957F2D
"""Odd; the digests of several tensors are joined with it."""


class RowDigests:
    """The digests of the rows of a batch, which devices may still compute."""

    def __init__(self, parts: list[Any]) -> None:
        """`parts`: arrays, and copies of tensors that are on their way to the host."""
        self._parts = parts

    def is_ready(self) -> bool:
        """True if `values` need not wait for a device."""
        return all(part.is_ready() for part in self._parts if isinstance(part, HostCopy))

    def values(self) -> "array[int]":
        """Return the digests, in the order of the rows."""
        values: array[int] = array("q")
        for part in self._parts:
            values.extend(part.value().tolist() if isinstance(part, HostCopy) else part)
        return values


def row_digests(batch: Any) -> RowDigests | None:
    """Return the digests of the rows of `batch`; None if nothing in it can be recognised, as in a single number."""
    parts = [_digests(tensors) for tensors in _micro_batches(batch, MAX_NESTING) if tensors]
    if not parts and (texts := _texts(batch)):
        parts = [array("q", map(_digest_of_text, texts))]
    return RowDigests(parts) if parts else None


def _micro_batches(batch: Any, levels: int) -> Iterator[list[Any]]:
    """Yield the tensors of each micro-batch: a list of mappings, or of other containers, holds several of them."""
    if _is_list(batch) and levels and batch and all(_is_container(each) for each in batch):
        for each in batch:
            yield from _micro_batches(each, levels - 1)
    else:
        yield list(_tensors(batch, levels))


def _tensors(batch: Any, levels: int) -> Iterator[Any]:
    """Yield the tensors and arrays within `batch` whose values can be read."""
    if _is_tensor(batch):
        if _is_readable(batch):
            yield batch
    elif levels:
        for each in _items(batch):
            yield from _tensors(each, levels - 1)


def _items(batch: Any) -> Iterable[Any]:
    if isinstance(batch, list | tuple):
        return () if batch and isinstance(batch[0], PLAIN) else batch
    if isinstance(batch, Mapping):
        return batch.values()
    if is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in fields(batch)]
    return getattr(batch, "__dict__", {}).values()


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not hasattr(value, "_fields")  # a named tuple is one object


def _is_container(value: Any) -> bool:
    if _is_tensor(value):
        return False
    return isinstance(value, list | tuple | Mapping) or is_dataclass(value) or hasattr(value, "__dict__")


def _is_tensor(value: Any) -> bool:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    kinds = [] if torch is None else [torch.Tensor]
    return isinstance(value, (*kinds, *([] if numpy is None else [numpy.ndarray])))


def _is_readable(tensor: Any) -> bool:
    """True for a tensor with at least one dimension and one value, which this process holds as plain numbers."""
    if not tensor.ndim or 0 in tensor.shape:
        return False
    if _device(tensor) is None:
        return tensor.dtype.kind in "biufcmM"
    is_plain = tensor.layout is sys.modules["torch"].strided and not tensor.is_quantized
    return is_plain and not hasattr(tensor, "full_tensor")  # a distributed one


def _digests(tensors: list[Any]) -> Any:
    """Return the digests of the rows of `tensors` as an array, or a copy of them that is on its way to the host.

    The first tensor with rows says how many there are; others with as many belong to the same samples.
    """
    first = next((each for each in tensors if each.ndim > 1), None)
    num_rows = 1 if first is None else len(first)
    device = _device(tensors[0] if first is None else first)
    total_B: Any = None
    for each in tensors:
        if (first is None or len(each) == num_rows) and _device(each) == device:
            values_BN = _integers(each.reshape(num_rows, -1))
            values_BN = values_BN[:, :: -(-values_BN.shape[1] // max(MIN_ROW_VALUES, MAX_VALUES // num_rows))]
            digests_B = (values_BN * _weights(device)[: values_BN.shape[1]]).sum(1)
            total_B = digests_B if total_B is None else total_B * FACTOR + digests_B
    return total_B.tolist() if device is None or device.type == "cpu" else HostCopy(total_B)


def _device(tensor: Any) -> Any:
    """Return the device of a tensor; None for an array of NumPy."""
    return tensor.device if hasattr(tensor, "is_cuda") else None


def _integers(values_BN: Any) -> Any:
    """Return the same bits as signed integers; 8 bytes of a float as two of them, because its last ones are often 0."""
    is_torch = _device(values_BN) is not None
    is_float = values_BN.is_floating_point() or values_BN.is_complex() if is_torch else values_BN.dtype.kind in "fc"
    name = f"int{8 * min(4 if is_float else 8, values_BN.dtype.itemsize)}"
    if is_torch:
        return values_BN.detach().contiguous().view(getattr(sys.modules["torch"], name))
    return sys.modules["numpy"].ascontiguousarray(values_BN).view(name)


@cache
def _weights(device: Any) -> Any:
    """Return MAX_VALUES odd numbers on a device of torch, or in an array of NumPy."""
    drawn = bytearray(Random(29).randbytes(8 * MAX_VALUES))
    if device is None:
        return sys.modules["numpy"].frombuffer(drawn, dtype="int64") | 1
    torch: Any = sys.modules["torch"]
    return torch.frombuffer(drawn, dtype=torch.int64).to(device) | 1


def _texts(batch: Any) -> list[str]:
    """Return the samples of a batch of texts, or of other plain values, as texts; none for a number alone."""
    if batch is None or isinstance(batch, bool | int | float):
        return []
    has_rows = _is_list(batch) and all(isinstance(each, str | bytes | list | tuple | dict) for each in batch)
    try:
        return [json.dumps(_shortened(each)) for each in (batch if has_rows else [batch])]
    except (TypeError, ValueError):  # what has no value of its own
        return []


def _shortened(value: Any) -> Any:
    """Return a plain value for JSON, with evenly spaced elements of its long lists."""
    if isinstance(value, Mapping):
        return {str(name): _shortened(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        spaced = value[:: max(1, -(-len(value) // MAX_LIST))]
        return spaced if spaced and isinstance(spaced[0], int | float) else [_shortened(each) for each in spaced]
    return value.hex() if isinstance(value, bytes) else value


def _digest_of_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
