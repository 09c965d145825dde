"""Samples are taken at each look, kept while nobody takes them, and never more than there is room for."""

from pathlib import Path

import pytest

from lossguard.delivery import hardware
from lossguard.delivery.hardware import HardwareSampler, readers
from lossguard.vocabulary.hardware import MACHINE, MAX_SAMPLES_PER_REPORT


def made(tmp_path: Path) -> HardwareSampler:
    return HardwareSampler(tmp_path, interval=1.0, newest_step=lambda: 40, read=lambda: {"gpu0": {"power": 1.0}})


def test_a_sample_says_when_where_and_at_which_step_it_was_taken(tmp_path: Path) -> None:
    sampler = made(tmp_path)
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
