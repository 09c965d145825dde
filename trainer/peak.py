"""What a device can compute at most: from its data sheet where the table knows it, else measured."""

import functools
import re
import time
from dataclasses import dataclass

import torch

DATA_SHEETS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIE", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("A40", 149.7e12),
    ("A30", 165e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("MI300X", 1307.4e12),
    ("MI325X", 1307.4e12),
)
"""Words of a GPU's name, and its dense bfloat16 FLOP/s without sparsity; the first row whose words all occur counts."""
REPEATS = 5
SIZE = {"cpu": 768}
BIG_SIZE = 8192


@dataclass(frozen=True, slots=True)
class Peak:
    flops_per_second: float
    source: str
    """How the figure was come by, as a sentence part."""


def peak_of(device: torch.device) -> Peak:
    """Of one device, in bfloat16 on a GPU and in float32 on a CPU: as the trainer computes there."""
    if device.type == "cpu":
        return _measured(device, torch.get_num_threads())
    return from_data_sheet(torch.cuda.get_device_name(device)) or _measured(device, 1)


def from_data_sheet(name: str) -> Peak | None:
    """None for a GPU that is not in the table, and for a slice of one (MIG)."""
    words = set(re.findall(r"[A-Z0-9]+", name.upper()))
    for row, flops_per_second in DATA_SHEETS:
        if words.issuperset(row.split()) and "MIG" not in words:
            return Peak(flops_per_second, "dense bfloat16, data sheet")
    return None


@functools.cache
def _measured(device: torch.device, num_threads: int) -> Peak:
    """The fastest of a few matrix products, once in a process: what can be reached here, no data sheet's figure."""
    kind, dtype = ("float32", torch.float32) if device.type == "cpu" else ("bfloat16", torch.bfloat16)
    size = SIZE.get(device.type, BIG_SIZE)
    factor = torch.ones(size, size, dtype=dtype, device=device)
    shortest = min(_seconds(factor) for _ in range(REPEATS))
    return Peak(2 * size**3 / shortest, f"measured, {kind} matrix product on {num_threads} thread(s)")


def _seconds(factor: torch.Tensor) -> float:
    began = time.perf_counter()
    (factor @ factor)[0, 0].item()  # reading a number waits for the device
    return time.perf_counter() - began
