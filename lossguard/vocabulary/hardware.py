"""The values of a sample: one row for each that Lossguard knows by name, for charts, Prometheus and the docs."""

from collections.abc import Mapping
from dataclasses import dataclass

MACHINE = "machine"
"""The device whose values are those of the whole machine; a GPU is called by its number: gpu0."""
MAX_SAMPLES_PER_REPORT, MAX_VALUES = 512, 64
"""Samples of a report; values of a sample."""
MAX_DEVICE = 32
"""Characters of the name of a device."""
MAX_ERRORS = 10**9
"""Maximum errors of one kind in a sample; a larger counter is broken: that of a lost GPU counts 2^64 - 1."""


@dataclass(frozen=True, slots=True)
class HardwareValue:
    """The facts of one value of a sample."""

    name: str
    """The key in a sample, in the API and in the store."""
    title: str
    """Heading of its chart, with the unit."""
    gauge: str
    """Name of the Prometheus gauge of its newest value."""
    error: str = ""
    """One error in running text, if those since the sample before are counted. Any is shown beside an incident."""
    tick_format: str = "~s"
    """Format of the axis, in d3-format."""


VALUES: tuple[HardwareValue, ...] = (
    HardwareValue(
        "gpu_utilisation",
        "GPU utilisation (share of time with a kernel)",
        "lossguard_gpu_utilisation_ratio",
        tick_format=".0%",
    ),
    HardwareValue("gpu_memory", "GPU memory in use (share)", "lossguard_gpu_memory_used_ratio", tick_format=".0%"),
    HardwareValue("temperature", "GPU temperature (°C)", "lossguard_gpu_temperature_celsius"),
    HardwareValue("power", "GPU power (W)", "lossguard_gpu_power_watts"),
    HardwareValue("ecc_errors", "Uncorrected ECC errors", "lossguard_gpu_ecc_errors", error="ECC error"),
    HardwareValue("xid_errors", "XID errors", "lossguard_gpu_xid_errors", error="XID error"),
    HardwareValue(
        "cpu_utilisation",
        "CPU utilisation (share of all cores)",
        "lossguard_host_cpu_utilisation_ratio",
        tick_format=".0%",
    ),
    HardwareValue("memory", "Memory in use (share)", "lossguard_host_memory_used_ratio", tick_format=".0%"),
    HardwareValue("disk", "Disk of the spool in use (share)", "lossguard_host_disk_used_ratio", tick_format=".0%"),
    HardwareValue("disk_read", "Disk reads (bytes per second)", "lossguard_host_disk_read_bytes_per_second"),
    HardwareValue("disk_write", "Disk writes (bytes per second)", "lossguard_host_disk_write_bytes_per_second"),
    HardwareValue(
        "network_receive", "Network, received (bytes per second)", "lossguard_host_network_receive_bytes_per_second"
    ),
    HardwareValue(
        "network_transmit", "Network, sent (bytes per second)", "lossguard_host_network_transmit_bytes_per_second"
    ),
)
"""All values in the order in which they are shown. `xid_code` is the number of the last of the `xid_errors`."""

BY_NAME: Mapping[str, HardwareValue] = {value.name: value for value in VALUES}
ERRORS = tuple(value.name for value in VALUES if value.error)
XID_CODE = "xid_code"


def num_errors(values: Mapping[str, float]) -> int:
    """Return how many errors a sample counts, at most MAX_ERRORS of each kind."""
    return sum(int(min(max(values.get(name, 0.0), 0.0), MAX_ERRORS)) for name in ERRORS)


def describe_errors(values: Mapping[str, float]) -> str:
    """The errors of a sample, such as "2 ECC errors, XID error 79"; empty where there are none."""
    parts = []
    for name in ERRORS:
        if count := int(values.get(name, 0)):
            code = f" {values[XID_CODE]:.0f}" if name == "xid_errors" and XID_CODE in values else ""
            several = f"{count} " if count > 1 else ""
            parts.append(f"{several}{BY_NAME[name].error}{'s' if count > 1 else ''}{code}")
    return ", ".join(parts)
