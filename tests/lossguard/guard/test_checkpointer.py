"""What is measured of saving and loading, and which tier holds which step."""

import math
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from lossguard.guard.checkpointer import CheckpointSaver
from lossguard.run.ranks import Ranks
from lossguard.torch import Checkpoints
from lossguard.vocabulary.errors import CheckpointError, LogOnce
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import RestorableTier
from tests.lossguard.recorded import offline, steps
from tests.lossguard.scripted import Memory, ScriptedRun
from tests.waiting import pause

T = TypeVar("T")


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


class Elsewhere(Tiered):
    durable_tier = Tier.REMOTE


def saver_of(checkpoints: Memory) -> tuple[CheckpointSaver, ScriptedRun]:
    run = ScriptedRun()
    saver = CheckpointSaver(run, checkpoints, Ranks(), LogOnce(), every=10)
    saver.report_restorable()
    return saver, run


class SecondRank(Ranks):
    """Rank 1 of 2, to which rank 0 has said `said`."""

    rank, size = 1, 2
    said: str | None = None

    def broadcast(self, value: T) -> T:
        return self.said  # type: ignore[return-value]


def test_a_state_that_rank_0_doubts_is_kept_in_the_memory_of_no_rank() -> None:
    """Rank 0 alone knows the losses; a rank that kept it would let go of an older state, which the others have."""

    class Certified(Tiered):
        doubt: Any = None

        def save_in_memory(self, step: int, state: dict[str, Any]) -> None:
            if self.doubt(step) is None:
                super().save_in_memory(step, state)

        def take_uncertified(self) -> list[tuple[int, str]]:
            return []

    ranks, checkpoints = SecondRank(), Certified()
    saver = CheckpointSaver(ScriptedRun(), checkpoints, ranks, LogOnce(), every=1000)
    for step, ranks.said in ((70, None), (80, "the loss is in a spike"), (90, None)):
        saver.save_if_due(step, dict)
    assert checkpoints.steps() == [0, 50, 60, 70, 90]
    ranks.said = "the loss is in a spike"
    assert checkpoints.doubt(1000) is None, "of a durable state the saving thread asks the run, and all ranks"


def test_a_step_that_memory_and_disk_hold_counts_as_in_memory_which_it_is_loaded_from() -> None:
    assert saver_of(Tiered())[1].tiers == [
        RestorableTier(tier=Tier.MEMORY, steps=(50, 60)),
        RestorableTier(tier=Tier.DISK, steps=(0,)),
    ]


def test_a_store_without_memory_has_all_its_steps_on_the_disk_and_an_empty_tier_is_not_named() -> None:
    memory = Memory([])
    memory.saved = dict.fromkeys((0, 50), ([], {}))
    assert saver_of(memory)[1].tiers == [RestorableTier(tier=Tier.DISK, steps=(0, 50))]


@pytest.mark.parametrize(("store", "tier"), [(Tiered, "disk"), (Elsewhere, "remote")])
def test_nothing_is_said_of_a_time_before_it_is_measured_and_then_it_belongs_to_its_tier(
    store: type[Tiered], tier: str
) -> None:
    saver, run = saver_of(store(seconds=0.01))
    assert [each.to_wire() for each in run.tiers] == [
        {"tier": "memory", "steps": [50, 60]},
        {"tier": tier, "steps": [0]},
    ]
    saver.load(60)
    saver.save(70, dict)
    memory, durable = run.tiers
    assert memory.load_seconds is not None
    assert memory.load_seconds >= 0.01
    assert (memory.save_seconds, durable.load_seconds) == (None, None)
    assert durable.to_wire().keys() == {"tier", "steps", "save_seconds"}
    saver.load(0)
    saver.report_restorable()
    assert run.tiers[1].load_seconds is not None


def test_a_load_that_fell_back_to_an_older_checkpoint_or_failed_is_no_measurement() -> None:
    saver, run = saver_of(Tiered())
    assert saver.load(55) == {"step": 50}
    with pytest.raises(CheckpointError):
        saver.load(-1)
    saver.report_restorable()
    assert [each.load_seconds for each in run.tiers] == [None, None]


@pytest.mark.parametrize(("enabled", "skipped"), [(True, [None, 1, None]), (False, [None, None, None])])
def test_an_overflow_that_the_grad_scaler_leaves_out_is_a_skipped_update(
    tmp_path: Path, enabled: bool, skipped: list[int | None]
) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    with offline(tmp_path) as run:
        CheckpointSaver(run, Checkpoints(tmp_path / "c", scaler=scaler), Ranks(), LogOnce(), every=10)
        for step, (loss, grad_norm) in enumerate([(2.0, 1.0), (2.0, math.inf), (math.nan, math.nan)]):
            run.log(step, loss=loss, grad_norm=torch.tensor(grad_norm))
    assert [metrics.get("skipped") for _, metrics in steps(run)] == skipped
    assert steps(run)[1][1]["grad_norm"] == "Infinity"
