"""What is measured of saving and loading, and which tier holds which step."""

import time
from typing import Any

import pytest

from lossguard.checkpoints.store import CheckpointTimes
from lossguard.vocabulary.errors import CheckpointError
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import RestorableTier
from tests.lossguard.scripted import Memory
from tests.waiting import pause


class Tiered(Memory):
    """Steps 0 and 50 on the disk, 50 and 60 in memory; a load takes as long as `seconds` says."""

    memory_every = 10

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__([])
        self.seconds = seconds
        for step in (0, 50, 60):
            self.save(step, {"step": step})

    def save_in_memory(self, step: int, state: dict[str, Any]) -> None:
        self.save(step, state)

    def memory_steps(self) -> list[int]:
        return [50, 60]

    def durable_steps(self) -> list[int]:
        return [0, 50]

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        pause(self.seconds)
        return super().load(step, not_before=not_before)


def test_a_step_that_memory_and_disk_hold_counts_as_in_memory_which_it_is_loaded_from() -> None:
    assert CheckpointTimes(Tiered()).tiers([0, 50, 60]) == [
        RestorableTier(tier=Tier.MEMORY, steps=(50, 60)),
        RestorableTier(tier=Tier.DISK, steps=(0,)),
    ]


def test_a_store_without_memory_has_all_its_steps_on_the_disk_and_an_empty_tier_is_not_named() -> None:
    assert CheckpointTimes(Memory([])).tiers([0, 50]) == [RestorableTier(tier=Tier.DISK, steps=(0, 50))]


def test_nothing_is_said_of_a_time_before_it_is_measured_and_then_it_belongs_to_its_tier() -> None:
    times = CheckpointTimes(Tiered(seconds=0.01))
    assert [each.to_wire() for each in times.tiers([0, 60])] == [
        {"tier": "memory", "steps": [60]},
        {"tier": "disk", "steps": [0]},
    ]
    times.saved(Tier.DISK, time.perf_counter() - 2000.0)
    times.load(60)
    memory, disk = times.tiers([0, 60])
    assert memory.load_seconds is not None
    assert memory.load_seconds >= 0.01
    assert (memory.save_seconds, disk.load_seconds) == (None, None)
    assert disk.save_seconds == pytest.approx(2000.0, abs=60.0)
    assert disk.to_wire().keys() == {"tier", "steps", "save_seconds"}


def test_a_load_that_fell_back_to_an_older_checkpoint_or_failed_is_no_measurement() -> None:
    times = CheckpointTimes(Tiered())
    assert times.load(55) == {"step": 50}
    with pytest.raises(CheckpointError):
        times.load(-1)
    assert [each.load_seconds for each in times.tiers([0, 60])] == [None, None]


def test_a_store_that_keeps_its_durable_checkpoints_elsewhere_names_that_tier() -> None:
    class Elsewhere(Tiered):
        durable_tier = Tier.REMOTE

    times = CheckpointTimes(Elsewhere())
    times.saved(Tier.REMOTE, time.perf_counter())
    times.load(0)
    memory, remote = times.tiers([0, 60])
    assert (memory.tier, remote.tier) == ("memory", "remote")
    assert None not in (remote.load_seconds, remote.save_seconds)
