from typing import Any

import pytest

from lossguard.vocabulary.protocol import ANSWERS_PREFLIGHT
from lossguard.vocabulary.states import RunState
from monitor.detection.interventions.preflight import FRESH_SECONDS, Known, devices_of, duration, hours, preflight

NOW = 1_800_000_000.0
TIERS = (
    {"tier": "memory", "steps": [4950], "load_seconds": 0.25},
    {"tier": "disk", "steps": [4000, 4950], "load_seconds": 9.0, "save_seconds": 1.5},
)


def known(**fields: Any) -> Known:
    """A proposed rollback of a run on 8 GPUs with steps of 2 s, as the trainer said 5 s ago."""
    given: dict[str, Any] = {
        "now": NOW,
        "kind": "rollback",
        "number": 3,
        "rewind_to": 4950,
        "skip_from": 4950,
        "skip_to": 4962,
        "onset_step": 4960,
        "capabilities": ("rollback", ANSWERS_PREFLIGHT),
        "devices": ("NVIDIA H100",) * 8,
        "restorable_steps": (4000, 4950),
        "restorable_tiers": TIERS,
        "last_report_at": NOW - 1,
        "newest_step": 5049,
        "recent_reports": ((NOW - 20, 5039, 1000.0, 2.0), (NOW, 5049, 6000.0, 2.0)),
        "answered_at": NOW - 5,
        "answer": {"problem": "", "tier": "disk", "refused": "", "texts": [{"batch": 4950, "text": "the cat"}]},
    }
    return Known(**given | fields)


def said(**fields: Any) -> str:
    return " ".join(preflight(known(**fields)).sentences)


def test_a_checkpoint_that_is_still_there_is_named_with_its_tier_and_times() -> None:
    found = preflight(known())
    assert (found.restorable, found.tier, found.restore_seconds, found.save_seconds) == (True, "disk", 9.0, 1.5)
    assert found.texts == ((4950, "the cat"),)
    assert found.sentences[0] == "The checkpoint of step 4,950 is there (the trainer said so 5 s ago)."
    assert "The last restore from there took 9 s." in found.sentences[1]


def test_a_checkpoint_that_is_gone_is_named_with_the_reason() -> None:
    answer = {"problem": "model.pt is missing", "tier": None}
    assert preflight(known(answer=answer)).restorable is False
    assert "cannot be restored (the trainer said so 5 s ago): model.pt is missing." in said(answer=answer)


def test_costs_are_devices_times_hours() -> None:
    found = preflight(known())
    assert (found.recomputed_steps, found.num_devices, found.unit) == (100, 8, "GPU-hours")
    assert found.rollback_hours == pytest.approx((100 * 2 + 9) * 8 / 3600)
    assert found.hours_since_onset == pytest.approx(90 * 2 * 8 / 3600)
    assert found.hours_per_hour == 8
    assert (found.skipped_batches, found.skipped_tokens) == (12, 12 * 500.0)
    assert "12 batches are skipped: 4,950 to 4,961, about 6 k tokens." in found.sentences


def test_a_configuration_with_more_processes_than_devices_counts_them() -> None:
    assert preflight(known(config={"world_size": 512})).num_devices == 512
    assert preflight(known(config={"num_gpus": 16})).num_devices == 16
    assert preflight(known(config={"world_size": "many"})).num_devices == 8
    assert preflight(known(devices=("x86_64",))).unit == "device-hours"


@pytest.mark.parametrize(
    ("config", "devices", "expected"),
    [
        ({"world_size": 64}, ["H100"] * 8, (64, True)),
        ({"num_gpus": 4}, [], (4, True)),
        ({"ranks": 2}, ["H100"] * 8, (2, True)),
        ({"num_processes": 16}, ["H100"] * 8, (16, True)),
        ({"num_gpus": 8, "world_size": 64}, ["H100"] * 8, (64, True)),
        ({}, ["H100"] * 8, (8, False)),
        ({"world_size": "64"}, ["H100"] * 8, (8, False)),
        ({"world_size": True, "num_devices": 0}, [], (1, False)),
        ({"world_size": 10**9}, ["cpu"], (1, False)),
        ({"trainer": {"world_size": 16}}, ["H100"] * 8, (16, True)),
        ({"trainer": {"world_size": 1}, "world_size": 2}, ["H100"] * 8, (2, True)),
        ({"trainer": "lightning"}, ["H100"] * 8, (8, False)),
    ],
)
def test_the_devices_are_those_of_the_configuration_or_those_listed(
    config: dict[str, Any], devices: list[str], expected: tuple[int, bool]
) -> None:
    assert devices_of(config, devices) == expected


def test_a_trainer_that_answers_no_questions_is_not_asked_and_what_it_reported_is_said() -> None:
    nothing: dict[str, Any] = {"capabilities": ("rollback",), "answered_at": None, "answer": {}}
    assert preflight(known(**nothing)).restorable is None
    text = "Not asked: this trainer's release does not answer; it last reported 1 s ago. The checkpoint of step 4,950 "
    assert text + "is in the list that the trainer last reported." in said(**nothing)
    assert "step 4,950 is not in the list" in said(**nothing, restorable_steps=(4000,))
    assert preflight(known(**nothing)).tier == "memory"  # as it was reported


def test_a_trainer_that_has_not_answered_yet_or_is_silent_is_said_to() -> None:
    nothing: dict[str, Any] = {"answered_at": None, "answer": {}}
    assert "is asked, and has not answered; it last reported 1 s ago" in said(**nothing)
    assert "The trainer has been silent for 5 min." in said(**nothing, last_report_at=NOW - 300)
    assert "Not asked: the run has ended." in said(**nothing, state=RunState.FAILED)


def test_an_old_answer_counts_no_more() -> None:
    old = NOW - FRESH_SECONDS - 1
    assert preflight(known(answered_at=old)).restorable is None
    assert "has not answered since 61 s" in said(answered_at=old)


def test_limits_that_would_refuse_the_order_come_first() -> None:
    assert said(answer={"refused": "it skips 12 batches, and max_skip=4"}).startswith(
        "The trainer would refuse it: it skips 12 batches, and max_skip=4."
    )
    reported: dict[str, Any] = {"capabilities": ("rollback", "limits:max_depth=50"), "answered_at": None, "answer": {}}
    assert preflight(known(**reported)).refused == "it discards 100 steps, from 4950 to 5050, and max_depth=50"
    assert preflight(known(**reported | {"capabilities": ("limits:max_depth=100",)})).refused is None
    assert preflight(known(**reported | {"capabilities": ("limits:mode=approve",)})).refused is None  # a person does


def test_an_order_expires_on_the_terms_of_the_collector() -> None:
    found = preflight(known().on_terms(3600.0, 1000))
    assert (found.expires_seconds, found.expires_step) == (3600.0, 6049)
    assert found.sentences[-1] == "Approved now, the order expires in 60 min, or after step 6,049."


def test_what_is_not_known_is_not_estimated() -> None:
    found = preflight(known(newest_step=None, recent_reports=(), restorable_tiers=(), answered_at=None, answer={}))
    assert (found.recomputed_steps, found.rollback_hours, found.hours_since_onset) == (None, None, None)
    assert (found.restore_seconds, found.skipped_tokens, found.refused) == (None, None, None)
    assert "this process has not done one" in found.sentences[1]


def test_a_hold_restores_nothing() -> None:
    found = preflight(known(kind="hold", rewind_to=None, skip_from=None, skip_to=None))
    assert (found.restorable, found.skipped_batches) == (None, 0)
    assert found.sentences == ("A hold restores no checkpoint and skips no batches.",)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.001, "under 0.01 s"),
        (0.42, "0.4 s"),
        (8.4, "8.4 s"),
        (61.4, "61 s"),
        (300, "5 min"),
        (9000, "2.5 h"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_hours_are_never_rounded_to_nothing() -> None:
    assert hours(0.001, "GPU-hours") == "under 0.01 GPU-hours"
    assert hours(0.417, "GPU-hours") == "0.42 GPU-hours"
    assert hours(1.0, "GPU-hours") == "1 GPU-hour"
    assert hours(1234.5, "GPU-hours") == "1,234 GPU-hours"
