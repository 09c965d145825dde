"""Restorable steps with their tiers, from what a report says to what a policy sees."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.encoding import load
from monitor.detection.interventions.restorable import (
    MAX_OFFSETS,
    MAX_OLDER_STEPS,
    MAX_RECENT_STEPS,
    BatchIndex,
    RestorableStep,
    by_tier,
    restorable_steps,
    thinned,
)
from monitor.detection.rows import Rows

MEMORY = {"tier": "memory", "steps": [60, 70], "load_seconds": 0.1}
DISK = {"tier": "disk", "steps": [0, 50, 60]}


def test_each_step_has_the_tier_that_names_it_first_and_the_load_time_of_that() -> None:
    assert restorable_steps([0, 50, 60, 70, 80], [MEMORY, DISK]) == [
        RestorableStep(0, "disk"),
        RestorableStep(50, "disk"),
        RestorableStep(60, "memory", 0.1),
        RestorableStep(70, "memory", 0.1),
        RestorableStep(80),
    ]


@pytest.mark.parametrize("tiers", [None, []])
def test_without_tiers_only_the_steps_are_known(tiers: Any) -> None:
    assert restorable_steps([50, 0], tiers) == [RestorableStep(0), RestorableStep(50)]
    assert RestorableStep(50).describe() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "from disk"),
        (0.0001, "from disk, under 0.01 s"),
        (0.0432, "from disk, 0.043 s"),
        (1.25, "from disk, 1.2 s"),
        (312.4, "from disk, 312 s"),
    ],
)
def test_a_step_says_where_it_is_loaded_from_and_how_long_that_takes(seconds: float | None, words: str) -> None:
    assert RestorableStep(50, "disk", seconds).describe() == words
    assert RestorableStep(50, "remote", seconds).describe() == words.replace("disk", "a URL")


@given(st.sets(st.integers(0, 3000), max_size=800), st.sets(st.integers(0, 3000), max_size=20))
def test_of_a_long_list_the_steps_that_stay_keep_their_tiers(disk: set[int], memory: set[int]) -> None:
    tiers: list[dict[str, Any]] = [
        {"tier": "memory", "steps": sorted(memory), "load_seconds": 0.1},
        {"tier": "disk", "steps": sorted(disk)},
    ]
    kept = restorable_steps(thinned(sorted(disk | memory)), tiers)
    assert len(kept) <= MAX_RECENT_STEPS + MAX_OLDER_STEPS
    assert {each.step for each in kept} <= disk | memory
    for each in kept:
        assert each.tier == ("memory" if each.step in memory else "disk")
        assert each.load_seconds == (0.1 if each.step in memory else None)
    assert restorable_steps([each.step for each in kept], by_tier(kept)) == kept


def test_a_skip_moves_the_batches_of_later_steps() -> None:
    batches = BatchIndex()
    batches.update(Rows.of([0, 1, 2, 3], loss=[1.0] * 4, batch_index=[0, 1, 12, None]))
    assert [batches.batch_of(step) for step in (0, 1, 2, 3, 100)] == [0, 1, 12, 13, 110]
    assert load(BatchIndex, {"steps": batches.steps, "offsets": batches.offsets}) == batches


def test_a_rollback_forgets_the_skips_after_it() -> None:
    batches = BatchIndex()
    batches.update(Rows.of([0, 1, 2], loss=[1.0] * 3, batch_index=[0, 11, 22]))
    batches.rewind(2)
    assert [batches.batch_of(step) for step in (0, 1, 2)] == [0, 11, 12]


def test_of_many_skips_the_newest_are_known() -> None:
    """A run that skips a batch at every other step."""
    batches, steps = BatchIndex(), range(0, 10 * MAX_OFFSETS, 2)
    batches.update(Rows.of(steps, batch_index=[step + step // 2 for step in steps]))
    assert len(batches.steps) == len(batches.offsets) == MAX_OFFSETS
    known = steps[-MAX_OFFSETS:]
    assert [batches.batch_of(step) for step in known] == [step + step // 2 for step in known]
    batches.rewind(100)  # before all that is known
    batches.update(Rows.of([100, 102], batch_index=[150, 153]))
    assert [batches.batch_of(step) for step in (100, 101, 102)] == [150, 151, 153]
