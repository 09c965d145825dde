"""What is read of the machine and its GPUs, and the samples that wait for a report."""

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lossguard.delivery import hardware
from lossguard.delivery.hardware import GpuReader, HardwareSampler, MachineReader, readers
from lossguard.vocabulary.hardware import BY_NAME, MACHINE, MAX_SAMPLES_PER_REPORT

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


class FakeNvml(SimpleNamespace):
    """NVML without a GPU: `gpus` GPUs whose figures a test sets; functions in `unsupported` raise as theirs would."""

    NVML_TEMPERATURE_GPU = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = 8

    class NVMLError(Exception):
        pass

    def __init__(self, gpus: int = 2, unsupported: tuple[str, ...] = ()) -> None:
        self.ecc = [3] * gpus
        self.xid: deque[tuple[int, int]] = deque()
        """(GPU, code) of errors that were not read yet."""
        self.registered: list[int] = []
        super().__init__(
            nvmlInit=lambda: gpus or self._fail("Driver Not Loaded"),
            nvmlDeviceGetCount=lambda: gpus,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetPciInfo=lambda gpu: SimpleNamespace(busId=f"0000:{gpu:02}:00.0".encode()),
            nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=20, total=80),
            nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=95),
            nvmlDeviceGetTemperature=lambda gpu, sensor: 61 + gpu,
            nvmlDeviceGetPowerUsage=lambda gpu: 650_000,
            nvmlDeviceGetTotalEccErrors=lambda gpu, kind, counter: self.ecc[gpu],
            nvmlEventSetCreate=lambda: "events",
            nvmlDeviceRegisterEvents=lambda gpu, kinds, events: self.registered.append(gpu),
            nvmlEventSetWait=self._wait,
        )
        vars(self).update(dict.fromkeys(unsupported, lambda *_: self._fail("Not Supported")))

    def _wait(self, events: str, timeout: int) -> Any:
        assert timeout == 0, "the sender's thread must not wait"
        gpu, code = self.xid.popleft() if self.xid else self._fail("Timeout")
        return SimpleNamespace(device=gpu, eventData=code)

    def _fail(self, why: str) -> Any:
        raise self.NVMLError(why)


def test_every_gpu_is_read_in_base_units() -> None:
    read = GpuReader(FakeNvml()).read()
    assert read["gpu1"] == {
        "gpu_utilisation": 0.95,
        "gpu_memory": 0.25,
        "temperature": 62.0,
        "power": 650.0,
        "ecc_errors": 0.0,
        "xid_errors": 0.0,
    }
    assert list(read) == ["gpu0", "gpu1"]


def test_an_error_is_counted_once_at_its_gpu_and_those_from_before_the_run_are_not() -> None:
    nvml = FakeNvml()
    reader = GpuReader(nvml)
    assert nvml.registered == [0, 1]
    nvml.ecc[1] += 2
    nvml.xid.extend([(1, 48), (1, 79)])
    (gpu0, gpu1), (_, later) = (reader.read().values() for _ in range(2))
    assert (gpu1["ecc_errors"], gpu1["xid_errors"], gpu1["xid_code"]) == (2.0, 2.0, 79.0)
    assert [each[kind] for each in (gpu0, later) for kind in ("ecc_errors", "xid_errors")] == [0.0] * 4


def test_what_a_gpu_does_not_support_is_left_out_and_without_a_driver_there_is_no_reader() -> None:
    unsupported = ("nvmlDeviceGetTotalEccErrors", "nvmlEventSetCreate", "nvmlDeviceGetPowerUsage")
    read = GpuReader(FakeNvml(1, unsupported)).read()
    assert sorted(read["gpu0"]) == ["gpu_memory", "gpu_utilisation", "temperature"]
    with pytest.raises(FakeNvml.NVMLError, match="Driver Not Loaded"):
        GpuReader(FakeNvml(0))


def test_a_sample_says_when_where_and_at_which_step_it_was_taken(tmp_path: Path) -> None:
    sampler = HardwareSampler(tmp_path, interval=1.0, newest_step=lambda: 40, read=lambda: {"gpu0": {"power": 1.0}})
    sampler.look()
    (sample,) = sampler.waiting()
    assert sample == {**sample, "step": 40, "device": "gpu0", "values": {"power": 1.0}}
    assert sample["host"]
    sampler.sent([sample])
    assert sampler.waiting() == []


def test_the_samples_that_wait_are_bounded_and_one_with_an_error_stays(tmp_path: Path) -> None:
    values = {"power": 1.0, "ecc_errors": 1.0}
    sampler = HardwareSampler(tmp_path, interval=0.0, newest_step=lambda: None, read=lambda: {"gpu0": values})
    sampler.look()
    values["ecc_errors"] = 0.0
    for _ in range(MAX_SAMPLES_PER_REPORT + 10):
        sampler.look()
    waiting = sampler.waiting()
    assert len(waiting) == MAX_SAMPLES_PER_REPORT
    assert waiting[0]["values"]["ecc_errors"] == 1.0


def test_a_reader_that_fails_at_its_start_or_later_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            pass

        def read(self) -> dict[str, float]:
            raise RuntimeError("the driver is gone")

    monkeypatch.setattr(hardware, "MachineReader", Broken)
    monkeypatch.setattr(hardware, "GpuReader", Broken)
    assert readers(tmp_path)() == {MACHINE: {}}
