"""What the NVIDIA GPUs of the machine do, by NVML (the package nvidia-ml-py) where it is installed.

Errors: uncorrected ECC errors are the difference of NVML's volatile counter; XID errors (NVIDIA's numbers of critical
errors, https://docs.nvidia.com/deploy/xid-errors) are NVML events, where the driver lets a user register for them.
"""

import importlib
from collections.abc import Callable
from typing import Any

from lossguard.hardware.values import XID_CODE

MAX_GPUS = 16
MAX_EVENTS = 64
"""XID errors that are read at a time."""


class GpuReader:
    """Reads every GPU that NVML shows. What a GPU or its driver does not support is left out."""

    def __init__(self, nvml: Any | None = None) -> None:
        """`nvml`: the module pynvml. Raises ImportError without it, and NVMLError without a driver."""
        self._nvml = nvml or importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        count = min(self._nvml.nvmlDeviceGetCount(), MAX_GPUS)
        self._gpus = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self._names = {self._nvml.nvmlDeviceGetPciInfo(gpu).busId: f"gpu{i}" for i, gpu in enumerate(self._gpus)}
        self._ecc_before = [self._ecc_errors(gpu) for gpu in self._gpus]
        self._events = self._registered()

    def read(self) -> dict[str, dict[str, float]]:
        """The values of each GPU, by its name."""
        values = {f"gpu{index}": self._values(index, gpu) for index, gpu in enumerate(self._gpus)}
        for name, codes in self._xid_errors().items():
            values[name] |= {"xid_errors": float(len(codes)), XID_CODE: float(codes[-1])}
        return values

    def _values(self, index: int, gpu: Any) -> dict[str, float]:
        nvml = self._nvml
        memory = self._supported(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
        ecc = self._ecc_errors(gpu)
        before, self._ecc_before[index] = self._ecc_before[index], ecc
        values = {
            "gpu_utilisation": self._supported(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
            "gpu_memory": memory.used / memory.total if memory is not None and memory.total else None,
            "temperature": self._supported(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "power": self._supported(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "ecc_errors": None if ecc is None or before is None else max(ecc - before, 0),
            "xid_errors": None if self._events is None else 0,
        }
        return {name: float(value) for name, value in values.items() if value is not None}

    def _ecc_errors(self, gpu: Any) -> int | None:
        """Since the driver was loaded."""
        nvml = self._nvml
        kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        counted = self._supported(lambda: nvml.nvmlDeviceGetTotalEccErrors(gpu, *kinds))
        return None if counted is None else int(counted)

    def _registered(self) -> Any | None:
        """A set of events that gets the XID errors of the GPUs; None where they cannot be had."""
        nvml = self._nvml

        def register() -> Any:
            events = nvml.nvmlEventSetCreate()
            for gpu in self._gpus:
                nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, events)
            return events

        return self._supported(register) if self._gpus else None

    def _xid_errors(self) -> dict[str, list[int]]:
        """The codes since the reading before, by GPU."""
        found: dict[str, list[int]] = {}
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            event = self._supported(lambda: self._nvml.nvmlEventSetWait(self._events, 0))  # no event: a timeout
            if event is None:
                break
            name = self._supported(lambda: self._names[self._nvml.nvmlDeviceGetPciInfo(event.device).busId])  # noqa: B023
            if name is not None:
                found.setdefault(name, []).append(int(event.eventData))
        return found

    def _supported(self, read: Callable[[], Any]) -> Any | None:
        """What `read` returns; None where this GPU or driver does not have it."""
        try:
            return read()
        except (self._nvml.NVMLError, KeyError, AttributeError):
            return None
