"""What the whole machine does: CPU, memory, disk and network, by psutil where it is installed."""

import importlib
import shutil
import time
from pathlib import Path
from typing import Any

Counters = dict[str, float]


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
