"""NVML without a GPU: as much of the module pynvml as the reader uses."""

from collections import deque
from types import SimpleNamespace
from typing import Any


class FakeNvml:
    """`gpus` GPUs whose figures a test sets; the functions in `unsupported` raise as a GPU without them does."""

    NVML_TEMPERATURE_GPU = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = 8

    class NVMLError(Exception):
        pass

    def __init__(self, gpus: int = 2, unsupported: tuple[str, ...] = ()) -> None:
        self.num_gpus = gpus
        self.unsupported = unsupported
        self.ecc = [3] * gpus
        self.xid: deque[tuple[int, int]] = deque()
        """(GPU, code) of errors that were not read yet."""
        self.registered: list[int] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "unsupported"):
            raise FakeNvml.NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        if not self.num_gpus:
            raise FakeNvml.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return self.num_gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetPciInfo(self, gpu: int) -> Any:
        return SimpleNamespace(busId=f"0000:{gpu:02}:00.0".encode())

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=20, total=80)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=95)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 61 + gpu

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 650_000

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, kind: int, counter: int) -> int:
        return self.ecc[gpu]

    def nvmlEventSetCreate(self) -> str:
        return "events"

    def nvmlDeviceRegisterEvents(self, gpu: int, kinds: int, events: str) -> None:
        self.registered.append(gpu)

    def nvmlEventSetWait(self, events: str, timeout: int) -> Any:
        assert timeout == 0, "the sender's thread must not wait"
        if not self.xid:
            raise FakeNvml.NVMLError("Timeout")
        gpu, code = self.xid.popleft()
        return SimpleNamespace(device=gpu, eventData=code)
