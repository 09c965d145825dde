"""Samples of the hardware on their way to the collector. They are kept in memory only: a lost one costs nothing."""

import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lossguard.hardware.gpus import GpuReader
from lossguard.hardware.machine import MachineReader
from lossguard.hardware.values import MACHINE, MAX_SAMPLES_PER_REPORT, num_errors

Sample = dict[str, Any]
"""As in a report: time, step, host, device, values."""
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
    """What reads the hardware of this machine, with the packages that are installed."""
    machine = _made(lambda: MachineReader(directory))
    gpus = _made(GpuReader)

    def read() -> dict[str, Mapping[str, float]]:
        values: dict[str, Mapping[str, float]] = dict((_made(gpus.read) or {}) if gpus is not None else {})
        return ({MACHINE: _made(machine.read) or {}} if machine is not None else {}) | values

    return read


def _made(make: Callable[[], Any]) -> Any | None:
    """What `make` returns; None where a package, a driver or a permission is missing."""
    try:
        return make()
    except Exception:  # whatever a driver raises: hardware must not end the delivery
        return None
