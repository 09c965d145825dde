"""What is read of the machine."""

from pathlib import Path

import pytest

from lossguard.delivery.hardware import MachineReader
from lossguard.vocabulary.hardware import BY_NAME

psutil = pytest.importorskip("psutil")


def test_shares_lie_between_0_and_1_and_every_value_is_a_known_one(tmp_path: Path) -> None:
    read = MachineReader(tmp_path).read()
    assert {"memory", "disk"} <= read.keys() <= BY_NAME.keys()
    for name in ("memory", "disk", "cpu_utilisation"):
        assert 0.0 <= read.get(name, 0.0) <= 1.0


class FakePsutil:
    """Counters that a test sets; `disk` None: the system has no such counters."""

    def __init__(self) -> None:
        self.busy, self.idle, self.received = 0.0, 0.0, 0

    def cpu_times(self) -> object:
        return psutil._pslinux.scputimes(self.busy, 0.0, 0.0, self.idle, *[0.0] * 6)

    def virtual_memory(self) -> object:
        return type("Memory", (), {"percent": 40.0})()

    def disk_io_counters(self, nowrap: bool) -> None:
        return None

    def net_io_counters(self, nowrap: bool) -> object:
        return type("Network", (), {"bytes_recv": self.received, "bytes_sent": 0})()


@pytest.mark.skipif(not hasattr(psutil, "LINUX") or not psutil.LINUX, reason="the fake has Linux's fields")
def test_utilisation_and_rates_are_those_since_the_reading_before(tmp_path: Path) -> None:
    fake = FakePsutil()
    reader = MachineReader(tmp_path, fake)
    fake.busy, fake.idle, fake.received = 3.0, 1.0, 5000
    read = reader.read()
    assert read["cpu_utilisation"] == pytest.approx(0.75)
    assert read["network_receive"] > 0.0
    assert "disk_read" not in read
    fake.received = 10  # the interface was reset
    assert reader.read()["network_receive"] == 0.0
