"""Samples of the hardware: the machine by psutil, its NVIDIA GPUs by NVML."""

import importlib
import platform
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lossguard.vocabulary.hardware import MACHINE, MAX_SAMPLES_PER_REPORT, XID_CODE, num_errors

# The machine: CPU, memory, disk and network, by psutil where it is installed.

Counters = dict[str, float]
T = TypeVar("T")


class MachineReader:
    """Reads the machine's values. The shares of time and the rates are those since the reading before."""

    def __init__(self, directory: Path, psutil: Any | None = None) -> None:
        """`directory`: its file system is the disk whose use is read. `psutil`: the module; ImportError without it."""
        self._psutil = psutil or importlib.import_module("psutil")
        self._directory = directory
        self._before = self._counters()

    def read(self) -> dict[str, float]:
        """The values; one that the system does not have is left out."""
        before, now = self._before, self._counters()
        self._before = now
        values = {"memory": self._psutil.virtual_memory().percent / 100}
        usage = shutil.disk_usage(self._directory)
        if usage.total:
            values["disk"] = usage.used / usage.total
        cpu = now["cpu"] - before["cpu"]
        if cpu > 0:
            values["cpu_utilisation"] = min(max(1.0 - (now["idle"] - before["idle"]) / cpu, 0.0), 1.0)
        seconds = now["at"] - before["at"]
        for name in ("disk_read", "disk_write", "network_receive", "network_transmit"):
            if name in now and name in before and seconds > 0:
                values[name] = max(now[name] - before[name], 0.0) / seconds  # a counter may have begun anew
        return values

    def _counters(self) -> Counters:
        times = self._psutil.cpu_times()
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice too
        idle = times.idle + getattr(times, "iowait", 0.0)
        counters = {"at": time.monotonic(), "cpu": sum(times) - guests, "idle": idle}
        if disk := self._psutil.disk_io_counters(nowrap=False):
            counters |= {"disk_read": disk.read_bytes, "disk_write": disk.write_bytes}
        if network := self._psutil.net_io_counters(nowrap=False):
            counters |= {"network_receive": network.bytes_recv, "network_transmit": network.bytes_sent}
        return counters


# NVIDIA GPUs, by NVML (the package nvidia-ml-py) where it is installed.
#
# Errors: uncorrected ECC errors are the difference of NVML's volatile counter; XID errors (NVIDIA's numbers of critical
# errors, https://docs.nvidia.com/deploy/xid-errors) are NVML events, where the driver lets a user register for them.

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
        self._events: Any | None = _attempt(self._registered) if self._gpus else None

    def read(self) -> dict[str, dict[str, float]]:
        """The values of each GPU, by its name."""
        values = {f"gpu{index}": self._values(index, gpu) for index, gpu in enumerate(self._gpus)}
        for name, codes in self._xid_errors().items():
            values[name] |= {"xid_errors": float(len(codes)), XID_CODE: float(codes[-1])}
        return values

    def _values(self, index: int, gpu: Any) -> dict[str, float]:
        nvml = self._nvml
        memory = _attempt(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
        ecc = self._ecc_errors(gpu)
        before, self._ecc_before[index] = self._ecc_before[index], ecc
        values = {
            "gpu_utilisation": _attempt(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
            "gpu_memory": memory.used / memory.total if memory is not None and memory.total else None,
            "temperature": _attempt(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "power": _attempt(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "ecc_errors": None if ecc is None or before is None else max(ecc - before, 0),
            "xid_errors": None if self._events is None else 0,
        }
        return {name: float(value) for name, value in values.items() if value is not None}

    def _ecc_errors(self, gpu: Any) -> int | None:
        """Since the driver was loaded."""
        nvml = self._nvml
        kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        return _attempt(lambda: int(nvml.nvmlDeviceGetTotalEccErrors(gpu, *kinds)))

    def _registered(self) -> Any:
        """A set of events that gets the XID errors of the GPUs. Raises NVMLError where they cannot be had."""
        events = self._nvml.nvmlEventSetCreate()
        for gpu in self._gpus:
            self._nvml.nvmlDeviceRegisterEvents(gpu, self._nvml.nvmlEventTypeXidCriticalError, events)
        return events

    def _xid_errors(self) -> dict[str, list[int]]:
        """The codes since the reading before, by GPU."""
        found: dict[str, list[int]] = {}
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            event = _attempt(lambda: self._nvml.nvmlEventSetWait(self._events, 0))  # no event: a timeout
            if event is None:
                break
            name = _attempt(lambda: self._names[self._nvml.nvmlDeviceGetPciInfo(event.device).busId])  # noqa: B023
            if name is not None:
                found.setdefault(name, []).append(int(event.eventData))
        return found


# Samples on their way to the collector. They are kept in memory only: a lost one costs nothing.

Sample = dict[str, Any]
"""A sample as reports hold it: time, step, host, device, values."""
Read = Callable[[], Mapping[str, Mapping[str, float]]]
"""The values of each device."""


class HardwareSampler:
    """Takes a sample of every device at each look. One thread looks, because a driver may answer late or never;
    another one sends what waits.

    Never raises: what cannot be read is left out. psutil and nvidia-ml-py are imported at the first look, which has no
    values of its own: rates and counts are those since the look before.
    """

    def __init__(
        self, directory: Path, *, interval: float, newest_step: Callable[[], int | None], read: Read | None = None
    ) -> None:
        """`interval`: seconds between two looks; `directory`: the spool's folder; `newest_step`: of the run, now;
        `read`: instead of the machine's readers."""
        self.interval = interval
        self._directory = directory
        self._newest_step = newest_step
        self._read = read
        self._host = platform.node()[:256]
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque()

    def look(self) -> None:
        """Take a sample."""
        if self._read is None:
            self._read = readers(self._directory)
            return
        at, step = time.time(), self._newest_step()
        for device, values in self._read().items():
            if values:
                self._keep({"time": at, "step": step, "host": self._host, "device": device, "values": dict(values)})

    def _keep(self, sample: Sample) -> None:
        """Add a sample; the oldest one without an error makes room for it."""
        with self._lock:
            if len(self._samples) >= MAX_SAMPLES_PER_REPORT:
                oldest = next((each for each in self._samples if not num_errors(each["values"])), self._samples[0])
                self._samples.remove(oldest)
            self._samples.append(sample)

    def waiting(self) -> list[Sample]:
        """The samples that are to be sent, oldest first."""
        with self._lock:
            return list(self._samples)

    def sent(self, samples: list[Sample]) -> None:
        """These samples need not be sent (again)."""
        with self._lock:
            gone = set(map(id, samples))
            self._samples = deque(each for each in self._samples if id(each) not in gone)


def readers(directory: Path) -> Read:
    """Return the readers of this machine's hardware, with the packages that are installed."""
    machine, gpus = _attempt(lambda: MachineReader(directory)), _attempt(GpuReader)

    def read() -> dict[str, Mapping[str, float]]:
        values: dict[str, Mapping[str, float]] = {} if machine is None else {MACHINE: _attempt(machine.read) or {}}
        return values if gpus is None else values | (_attempt(gpus.read) or {})

    return read


def _attempt(call: Callable[[], T]) -> T | None:
    """Return what `call` returns, or None where a package, a driver, a permission or a part of a GPU is missing."""
    try:
        return call()
    except Exception:  # whatever a driver raises: hardware must not end the delivery
        return None
