"""The peak computing speed of a device: from its data sheet if the table lists it, else measured."""

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
"""Words of a GPU's name, and its dense bfloat16 FLOP/s; the first row whose words all occur applies."""
NUM_REPEATS = 5
MATRIX_SIZE = {"cpu": 768}
DEFAULT_MATRIX_SIZE = 8192


@dataclass(frozen=True, slots=True)
class PeakFlops:
    """The peak computing speed of one device."""

    flops_per_second: float
    source: str
    """Source of the figure, as a part of a sentence."""


def peak_flops(device: torch.device) -> PeakFlops:
    """Return the peak of one device, in the precision of the trainer: bfloat16 on a GPU, float32 on a CPU."""
    if device.type == "cpu":
        return _measured(device, torch.get_num_threads())
    return from_data_sheet(torch.cuda.get_device_name(device)) or _measured(device, 1)


def from_data_sheet(name: str) -> PeakFlops | None:
    """The peak of a GPU by its name; None for a GPU that is not in the table, and for a slice of one (MIG)."""
    words = set(re.findall(r"[A-Z0-9]+", name.upper()))
    for row, flops_per_second in DATA_SHEETS:
        if words.issuperset(row.split()) and "MIG" not in words:
            return PeakFlops(flops_per_second, "dense bfloat16, data sheet")
    return None


@functools.cache
def _measured(device: torch.device, num_threads: int) -> PeakFlops:
    """The fastest of a few matrix products, measured once per process: less than a data sheet would claim."""
    kind, dtype = ("float32", torch.float32) if device.type == "cpu" else ("bfloat16", torch.bfloat16)
    size = MATRIX_SIZE.get(device.type, DEFAULT_MATRIX_SIZE)
    factor = torch.ones(size, size, dtype=dtype, device=device)
    shortest = min(_seconds(factor) for _ in range(NUM_REPEATS))
    return PeakFlops(2 * size**3 / shortest, f"measured, {kind} matrix product on {num_threads} thread(s)")


def _seconds(factor: torch.Tensor) -> float:
    began = time.perf_counter()
    (factor @ factor)[0, 0].item()  # reading a number waits for the device
    return time.perf_counter() - began
