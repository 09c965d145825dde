"""What is read of GPUs, with an NVML that needs none."""

import pytest

from lossguard.delivery.hardware import GpuReader
from tests.lossguard.delivery.nvml import FakeNvml


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


def test_an_ecc_error_is_counted_once_and_those_from_before_the_run_are_not() -> None:
    nvml = FakeNvml()
    reader = GpuReader(nvml)
    nvml.ecc[1] += 2
    assert [reader.read()["gpu1"]["ecc_errors"] for _ in range(2)] == [2.0, 0.0]


def test_xid_errors_belong_to_their_gpu_and_the_last_code_is_kept() -> None:
    nvml = FakeNvml()
    reader = GpuReader(nvml)
    assert nvml.registered == [0, 1]
    nvml.xid.extend([(1, 48), (1, 79)])
    read = reader.read()
    assert (read["gpu1"]["xid_errors"], read["gpu1"]["xid_code"]) == (2.0, 79.0)
    assert (read["gpu0"]["xid_errors"], reader.read()["gpu1"]["xid_errors"]) == (0.0, 0.0)


def test_what_a_gpu_does_not_support_is_left_out() -> None:
    unsupported = ("nvmlDeviceGetTotalEccErrors", "nvmlEventSetCreate", "nvmlDeviceGetPowerUsage")
    read = GpuReader(FakeNvml(1, unsupported)).read()
    assert sorted(read["gpu0"]) == ["gpu_memory", "gpu_utilisation", "temperature"]


def test_without_a_driver_there_is_no_reader() -> None:
    with pytest.raises(FakeNvml.NVMLError, match="Driver Not Loaded"):
        GpuReader(FakeNvml(0))
