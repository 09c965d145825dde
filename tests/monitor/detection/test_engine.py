"""The detection engine as the collector drives it: exact detection steps, splits and persistence."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.source_facts import SOURCE, Clock, SourceFacts
from lossguard.vocabulary.states import IncidentKind, Outcome
from monitor.detection import (
    DetectionEngine,
    DetectionSettings,
    Effect,
    IncidentChanged,
    InterventionChanged,
    Outlier,
    Policy,
    Row,
    Rows,
)
from tests.monitor.detection.runs import EffectLog, begun, detected, healthy, reloaded, rows_of, spiked

AUTO = Policy(mode="auto")  # type: ignore[arg-type]
APPROVE = Policy(mode="approve")  # type: ignore[arg-type]


def test_a_healthy_run_has_no_incident() -> None:
    for seed in range(5):
        assert detected(healthy(2000, seed=seed)).incidents == []


def test_a_spike_is_found_in_the_row_that_confirms_it() -> None:
    (incident,) = detected(spiked(at=300)).incidents
    assert (incident.kind, incident.onset_step, incident.detected_step) == (IncidentKind.LOSS_SPIKE, 300, 301)
    assert incident.peak_value == spiked(at=300)["loss"][incident.peak_step] == max(spiked(at=300)["loss"][300:])


@pytest.mark.parametrize("signal", ["loss", "grad_norm", "log_z"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 1, 30, 300])
def test_a_value_that_is_not_finite_is_found_in_the_same_step(signal: str, value: float, step: int) -> None:
    columns = healthy(400)
    columns[signal][step] = value
    incident = detected(columns).incidents[0]
    assert (incident.kind, incident.signal, incident.detected_step) == (IncidentKind.NONFINITE, signal, step)


def test_nan_for_ever_is_one_incident_that_stays_open() -> None:
    columns = healthy(600)
    columns["loss"][300:] = np.nan
    (incident,) = detected(columns).incidents
    assert (incident.detected_step, incident.end_step, incident.outcome) == (300, None, Outcome.ONGOING)


@pytest.mark.parametrize("signal", ["loss", "grad_norm", "log_z"])
@pytest.mark.parametrize("step", [0, 1, 30, 300])
def test_a_single_nan_that_is_over_at_the_next_row_ends_as_recovered(signal: str, step: int) -> None:
    columns = healthy(400)
    columns[signal][step] = np.nan
    (incident,) = detected(columns).incidents
    assert (incident.kind, incident.outcome, incident.end_step) == (IncidentKind.NONFINITE, Outcome.RECOVERED, step)
    assert incident.reasons[-1].startswith("Back in band after step")
    assert (incident.peak_step, bool(np.isnan(incident.peak_value))) == (step, True)


def test_a_row_that_is_not_finite_has_what_was_expected_of_it() -> None:
    columns = healthy(400)
    columns["loss"][300] = np.nan
    (incident,) = detected(columns).incidents
    assert incident.expected == pytest.approx(2.2 + 3.3 * np.exp(-300 / 90), abs=0.1)
    assert 0.01 < incident.scale < 0.04


def test_nan_in_a_spike_is_an_incident_of_its_own_in_the_same_step() -> None:
    columns = spiked(at=300)
    columns["loss"][306] = np.nan
    spike, nan = detected(columns).incidents[:2]
    assert (spike.outcome, nan.kind, nan.detected_step) == (Outcome.DIVERGED, IncidentKind.NONFINITE, 306)


def test_one_hard_batch_is_an_outlier_and_no_incident() -> None:
    columns = healthy()
    columns["loss"][400] += 1.0
    log = detected(columns)
    assert log.incidents == []
    assert [(e.step, e.signal) for e in log.effects if isinstance(e, Outlier)] == [(400, "loss")]


def test_one_hard_batch_after_a_precursor_is_an_incident() -> None:
    columns = healthy()
    columns["grad_norm"][398] *= 10
    columns["loss"][400] += 1.0
    (incident,) = detected(columns).incidents
    assert (incident.onset_step, incident.detected_step) == (398, 400)


def test_in_rows_far_apart_one_row_is_a_spike() -> None:
    columns = healthy()
    columns["loss"][400] += 1.0
    _, log = begun(Rows.of(5 * np.arange(600), **columns))
    assert [incident.detected_step for incident in log.incidents] == [2000]


def test_the_onset_is_dated_back_to_the_precursor() -> None:
    columns = spiked(at=300)
    columns["grad_norm"][297:320] *= 10
    (incident,) = detected(columns).incidents
    assert (incident.onset_step, incident.detected_step) == (297, 298)
    assert incident.kind is IncidentKind.LOSS_SPIKE


def test_slow_drift_is_a_divergence_found_within_100_steps() -> None:
    for seed in range(5):
        columns = healthy(1300, seed=seed)
        columns["loss"][1000:] += 0.002 * np.arange(300)
        incident = detected(columns).incidents[0]
        assert incident.kind is IncidentKind.DIVERGENCE
        assert 1000 < incident.detected_step <= 1100
        assert incident.onset_step < 1030


@pytest.mark.parametrize("kind", ["data_mix", "learning_rate", "resume", "batch_size"])
def test_a_declared_shift_is_no_incident_and_hides_no_spike(kind: str) -> None:
    columns = healthy(900)
    columns["loss"][600:] += 0.4
    columns["loss"][620:660] += 1.0
    engine, log = DetectionEngine(), EffectLog()
    engine.declare(600, kind)
    log.add(engine.feed(rows_of(columns)))
    assert [incident.detected_step for incident in log.incidents] == [621]


@pytest.mark.parametrize("kind", ["note", "eval", "checkpoint", ""])
def test_a_declared_event_that_changes_no_curve_changes_no_detector(kind: str) -> None:
    rows, declared, plain = rows_of(spiked(at=300)), DetectionEngine(), DetectionEngine()
    declared.declare(299, kind)
    assert repr(declared.feed(rows)) == repr(plain.feed(rows))
    assert declared.state_dict() == plain.state_dict()


@pytest.mark.slow
def test_a_shift_that_is_declared_at_every_row_does_not_hide_every_spike() -> None:
    found = 0
    for at in range(300, 364, 2):
        engine, log = DetectionEngine(), EffectLog()
        rows = rows_of(spiked(at=at, height=0.5))[: at + 5]
        for step in range(len(rows)):
            engine.declare(step, "batch_size")
        log.add(engine.feed(rows))
        found += any(incident.detected_step >= at for incident in log.incidents)
    assert found >= 24


def test_a_jump_of_the_learning_rate_counts_as_declared() -> None:
    columns = healthy(900)
    columns["loss"][600:] += 0.2
    columns["lr"] = np.where(np.arange(900) < 600, 1e-3, 3e-3)
    assert detected(columns).incidents == []


@pytest.mark.parametrize("policy", [Policy(), APPROVE])
def test_a_loss_that_stays_up_is_not_learnt_and_its_incident_stays_open(policy: Policy) -> None:
    columns = healthy(2000)
    columns["loss"][500:] += 3.0
    engine, log = begun(rows_of(columns), restorable=range(0, 500, 50), policy=policy)
    (incident,) = log.incidents
    assert (incident.state, incident.end_step) == ("open", None)
    assert engine.detectors.by_signal["loss"].baseline.level < 2.4
    assert [intervention.state.value for intervention in log.interventions] == ["proposed"] * (policy is APPROVE)


def test_a_loss_that_comes_back_to_its_level_from_before_the_onset_has_recovered() -> None:
    columns = healthy(2000)
    columns["loss"][500:1500] += 3.0
    log = detected(columns, policy=APPROVE)
    assert [(incident.outcome, incident.end_step) for incident in log.incidents] == [(Outcome.RECOVERED, 1499)]
    assert log.states(1) == ["proposed", "withdrawn"]


def test_a_level_that_an_operator_accepts_is_learnt_at_once() -> None:
    columns = healthy(900)
    columns["loss"][500:] += 0.3
    columns["loss"][700:740] += 1.0
    rows, engine, log = rows_of(columns), DetectionEngine(policy=APPROVE), EffectLog()
    log.add(engine.feed(rows[:600], restorable=range(0, 500, 50)))
    log.add(engine.accept_level("a new data mix"))
    assert log.states(1) == ["proposed", "withdrawn"]
    assert log.incidents[0].reasons[-1].endswith("it is the new normal. a new data mix")
    log.add(engine.feed(rows[600:]))
    assert [incident.onset_step for incident in log.incidents] == [500, 700]
    assert log.incidents[1].expected == pytest.approx(2.5, abs=0.05)


def test_whoever_reads_the_rows_again_knows_the_accepted_level_from_its_event() -> None:
    columns = healthy(900)
    columns["loss"][500:] += 0.3
    rows, engine, again = rows_of(columns), DetectionEngine(policy=APPROVE), DetectionEngine()
    engine.feed(rows[:400])
    snapshot = engine.detectors_state()
    engine.feed(rows[400:600], restorable=range(0, 500, 50))
    engine.accept_level()
    engine.feed(rows[600:700])
    again.fork(700, "rewind", [rows[400:700]], snapshot, declared=[(600, "level_accepted")])
    assert again.detectors_state() == engine.detectors_state()


def test_there_must_be_something_to_accept() -> None:
    engine = DetectionEngine(policy=AUTO)
    engine.feed(rows_of(healthy(400)))
    before = engine.state_dict()
    with pytest.raises(ValueError, match="no incident of the loss level is open"):
        engine.accept_level()
    engine.feed(rows_of(spiked(at=430, steps=480))[400:], restorable=range(0, 400, 50))
    with pytest.raises(ValueError, match="an order for this incident is under way"):
        engine.accept_level()
    assert before["detectors"] != engine.state_dict()["detectors"]


def test_after_a_rejected_proposal_a_level_that_lasts_is_learnt() -> None:
    columns = healthy(1500)
    columns["loss"][500:] += 0.3
    rows, engine, log = rows_of(columns), DetectionEngine(policy=APPROVE), EffectLog()
    log.add(engine.feed(rows[:600], restorable=range(0, 500, 50)))
    log.add(engine.reject(1))
    log.add(engine.feed(rows[600:]))
    assert [(incident.outcome, incident.state.value) for incident in log.incidents] == [(Outcome.ONGOING, "closed")]


def test_a_restart_in_the_middle_of_a_diverged_loss_does_not_make_it_normal() -> None:
    columns = healthy(1200)
    columns["loss"][500:] += 3.0
    rows, engine, log = rows_of(columns), DetectionEngine(policy=APPROVE), EffectLog()
    log.add(engine.feed(rows[:600], restorable=range(0, 500, 50)))
    state = engine.detectors_state()
    log.add(engine.feed(rows[600:620]))
    log.add(engine.fork(600, "resume", [], state))
    log.add(engine.feed(rows[600:]))
    assert [(incident.state.value, incident.onset_step) for incident in log.incidents] == [("open", 500)]
    assert log.states(1) == ["proposed"]


def collapsed(rows: int, *, back_to: float = 2.2) -> dict[str, Any]:
    """A run whose loss falls to nothing at step 500, for so many rows: batches of one repeated byte."""
    columns = healthy(1000)
    columns["loss"][500 : 500 + rows] = 0.001
    columns["grad_norm"][500 : 500 + rows] = 1e-3
    columns["loss"][500 + rows :] += back_to - 2.2
    return columns


@pytest.mark.parametrize("policy", [Policy(), APPROVE, AUTO])
def test_a_loss_that_collapses_is_an_incident_that_teaches_nothing_and_its_end_is_no_spike(policy: Policy) -> None:
    log = detected(collapsed(40), policy=policy)
    (incident,) = log.incidents
    assert (incident.kind, incident.onset_step, incident.detected_step) == (IncidentKind.LOSS_COLLAPSE, 500, 501)
    assert (incident.outcome, incident.end_step, incident.peak_value) == (Outcome.RECOVERED, 539, 0.001)
    assert incident.expected == pytest.approx(2.2, abs=0.1)
    assert log.interventions == []
    assert not any("has not moved" in reason for reason in incident.reasons)


def test_a_loss_that_is_damaged_after_a_collapse_is_a_spike_above_the_level_from_before() -> None:
    log = detected(collapsed(40, back_to=5.0), policy=AUTO)
    kinds = [incident.kind for incident in log.incidents]
    assert kinds == [IncidentKind.LOSS_COLLAPSE, IncidentKind.LOSS_SPIKE]
    assert log.incidents[1].expected == pytest.approx(2.2, abs=0.1)


def test_a_low_loss_that_lasts_is_learnt() -> None:
    log = detected(collapsed(500), policy=AUTO)
    (incident,) = log.incidents
    assert (incident.kind, incident.outcome) == (IncidentKind.LOSS_COLLAPSE, Outcome.ONGOING)
    assert "the lower one is now the baseline" in incident.reasons[-1]


def test_one_lucky_batch_is_no_collapse() -> None:
    columns = healthy(800)
    columns["loss"][500] = 0.01
    assert detected(columns).incidents == []


@pytest.mark.parametrize("steps", [20, 60, 200])
def test_progress_that_takes_its_steps_is_no_collapse(steps: int) -> None:
    columns = healthy(1500)
    columns["loss"] = columns["loss"] * np.where(
        np.arange(1500) < 500, 1.0, np.maximum(np.exp(-(np.arange(1500) - 500) / steps), 0.02)
    )
    assert [incident.kind for incident in detected(columns).incidents] == []


def test_a_fall_with_the_learning_rate_is_no_collapse() -> None:
    columns = healthy(900)
    columns["lr"] = np.where(np.arange(900) < 600, 1e-3, 1e-4)
    columns["loss"][600:] *= 0.6
    assert detected(columns).incidents == []


def test_a_plateau_is_reported_once() -> None:
    engine, log = DetectionEngine(), EffectLog()
    loss = 2.0 + 0.001 * np.random.default_rng(0).standard_normal(3000)
    loss[:100] -= 0.0005
    log.add(engine.feed(Rows.of(100 * np.arange(3000), loss=loss)))
    kinds = [incident.kind for incident in log.incidents]
    assert set(kinds) <= {IncidentKind.PLATEAU}


# Slow rises


def rising(height: float, steps: int = 400, rows: int = 3000) -> dict[str, Any]:
    """A run whose loss rises slowly from step 1000 on, by so many nats over so many steps, and stays there."""
    columns = healthy(rows)
    columns["loss"] = columns["loss"] + np.clip((np.arange(rows) - 1000) / steps, 0, 1) * height
    return columns


def test_a_slow_rise_is_one_incident_with_one_action_and_the_level_before_it_is_what_was_expected() -> None:
    log = detected(rising(0.15), policy=APPROVE)
    (incident,) = log.incidents
    assert (incident.kind, incident.state) == (IncidentKind.DIVERGENCE, "open")
    assert incident.expected == pytest.approx(2.2, abs=0.03)
    assert f"from {incident.expected:.5g}" in incident.reasons[0]
    assert f"the rise is {incident.score:.3g} times the alarm threshold" in incident.reasons[0]
    assert [intervention.state.value for intervention in log.interventions] == ["proposed"]


def test_a_rejected_action_is_reconsidered_when_the_loss_has_risen_by_as_much_again() -> None:
    rows, engine, log = rows_of(rising(0.5, steps=1000)), DetectionEngine(policy=APPROVE), EffectLog()
    for part in rows.split(50):
        fresh = log.add(engine.feed(part, restorable=range(0, int(part.steps[-1]), 50)))
        for number in {e.intervention.number for e in fresh if isinstance(e, InterventionChanged)}:
            log.add(engine.reject(number))
    (incident,) = [each for each in log.incidents if each.kind is IncidentKind.DIVERGENCE]
    assert 2 <= len(log.interventions) <= 3
    assert sum("risen by as much again" in reason for reason in incident.reasons) == len(log.interventions) - 1


def test_a_slow_rise_that_began_before_every_restorable_step_is_structural() -> None:
    _, log = begun(rows_of(rising(0.15)), restorable=range(1300, 1400, 50), policy=APPROVE)
    assert log.interventions[0].kind == "hold"
    assert log.incidents[0].reasons[1].startswith("The rise is structural: it began before every step")


# Small waves


def test_a_marginal_spike_that_is_back_on_average_is_not_acted_on() -> None:
    columns = healthy(1500, noise=0.1)
    columns["loss"][1000:1003] += [0.9, 0.8, 0.7]
    columns["loss"][1018] += 0.5
    log = detected(columns, policy=APPROVE)
    assert len(log.incidents) == 1
    assert log.interventions == []


@pytest.mark.parametrize("decay", [10, 40, 150])
@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_log_z_that_finds_its_level_in_the_first_steps_is_no_warning(decay: float, noise: float) -> None:
    columns = healthy(600)
    columns["log_z"] = 10.0 - 4.5 * np.exp(-np.arange(600) / decay) + noise * (columns["log_z"] - 8.0) / 0.05
    assert detected(columns).incidents == []


def test_an_incident_whose_loss_follows_has_the_facts_of_the_loss() -> None:
    columns = spiked(at=305)
    columns["grad_norm"][297:320] *= 30
    changes = [e.incident for e in detected(columns).effects if isinstance(e, IncidentChanged)]
    first, last = changes[0], changes[-1]
    assert (first.signal, last.signal, last.kind) == ("grad_norm", "loss", IncidentKind.LOSS_SPIKE)
    assert last.peak_value == columns["loss"][last.peak_step] == max(columns["loss"][last.peak_step :])
    assert last.expected == pytest.approx(2.3, abs=0.1)


# Recomputed steps


def with_batches(columns: dict[str, Any]) -> Rows:
    return rows_of(columns | {"batch_index": np.arange(len(columns["loss"]), dtype=float)})


def forked(
    rows: Rows, step: int = 400, *, policy: Policy | None = None, reason: str = "resume", **options: Any
) -> tuple[DetectionEngine, EffectLog]:
    """An engine that has seen `rows`, and a new segment from `step` on."""
    engine, log = begun(rows, restorable=range(0, 500, 50), policy=policy)
    recorded = rows[step : step + 20]
    log.add(engine.fork(step, reason, rows[:step].split(100), None, **({"recorded": recorded} | options)))
    return engine, log


def other_draw(steps: int = 600, **columns: Any) -> Rows:
    """The same run on other batches."""
    return with_batches(healthy(steps, seed=9) | columns)


def test_a_run_that_computes_something_else_needs_a_person_and_gets_no_rollback() -> None:
    engine, log = forked(with_batches(healthy(500)), policy=AUTO)
    log.add(engine.feed(other_draw()[400:], restorable=range(0, 600, 50)))
    (incident,) = log.incidents
    assert (incident.kind, incident.state, incident.signal) == (IncidentKind.REPLAY_MISMATCH, "open", "loss")
    assert (incident.onset_step, incident.detected_step) == (400, 407)
    assert incident.score > 1
    assert log.interventions == []


def test_an_open_mismatch_hides_no_spike_and_teaches_the_detectors_nothing() -> None:
    spike = other_draw()
    spike.metrics["loss"][500:540] += 1.0
    engine, log = forked(with_batches(healthy(500)), policy=AUTO)
    unchecked, other_log = forked(with_batches(healthy(500)), policy=AUTO, recorded=None)
    for each, seen in ((engine, log), (unchecked, other_log)):
        seen.add(each.feed(spike[400:], restorable=range(0, 600, 50)))
    mismatch, found = log.incidents
    (expected,) = other_log.incidents
    assert (mismatch.kind, found.onset_step, expected.onset_step) == (IncidentKind.REPLAY_MISMATCH, 500, 500)
    assert len(log.interventions) == len(other_log.interventions) == 1
    assert engine.detectors_state() == unchecked.detectors_state()


@settings(max_examples=20)
@given(st.lists(st.integers(401, 429), max_size=8), st.integers(400, 429), st.booleans())
@pytest.mark.slow
def test_the_verdict_does_not_depend_on_how_rows_are_grouped(cuts: list[int], saved: int, same: bool) -> None:
    again = with_batches(healthy(600)) if same else other_draw()
    again.metrics["loss"][404:420] += 1.0
    whole, _ = forked(with_batches(healthy(500)))
    expected = whole.feed(again[400:430])
    assert len({e.incident.kind for e in expected if isinstance(e, IncidentChanged)}) == 2
    engine, _ = forked(with_batches(healthy(500)))
    effects = []
    for a, b in pairwise(sorted({400, saved, *cuts, 430})):
        if a == saved:
            text, engine = json.dumps(engine.state_dict(), allow_nan=False), DetectionEngine()
            engine.load_state_dict(json.loads(text))
        effects += engine.feed(again[a:b])
    assert repr(effects) == repr(expected)
    assert engine.state_dict() == whole.state_dict()


def test_going_back_before_a_mismatch_ends_it_and_the_next_replay_is_compared_with_the_first_record() -> None:
    rows = with_batches(healthy(600))
    engine, log = forked(rows[:500])
    bad = other_draw()
    log.add(engine.feed(bad[400:450]))
    log.add(engine.fork(400, "resume", rows[:400].split(100), None, recorded=bad[400:420]))
    assert [(each.state, each.outcome, each.end_step) for each in log.incidents] == [("closed", "recovered", 407)]
    log.add(engine.feed(rows[400:450]))
    assert len(log.incidents) == 1


@pytest.mark.parametrize(("options", "num"), [({"recorded": None}, 1), ({"doubtful_from": 400}, 2)])
def test_after_a_mismatch_the_first_record_is_used_where_steps_can_be_compared_and_only_there(
    options: dict[str, Any], num: int
) -> None:
    """The collector passes no record when an order changes the updates, and a record that is in doubt where the replay
    that did not match led to an incident."""
    rows, bad = with_batches(healthy(600)), other_draw()
    engine, log = forked(rows[:500])
    log.add(engine.feed(bad[400:450]))
    log.add(engine.fork(400, "resume", rows[:400].split(100), None, **({"recorded": bad[400:420]} | options)))
    log.add(engine.feed(bad[400:450]))
    assert [each.kind for each in log.incidents] == [IncidentKind.REPLAY_MISMATCH] * num


def test_a_later_restore_leaves_a_mismatch_open() -> None:
    engine, log = forked(with_batches(healthy(500)))
    bad = other_draw()
    log.add(engine.feed(bad[400:500]))
    log.add(engine.fork(450, "resume", [], None, recorded=bad[450:470]))
    assert [each.state for each in log.incidents] == ["open"]


@pytest.mark.parametrize(("step", "state"), [(402, "open"), (400, "closed")])
def test_what_was_saved_after_a_wrong_restore_is_wrong_also_before_the_loss_shows_it(step: int, state: str) -> None:
    rows = with_batches(healthy(600))
    engine, log = forked(rows[:500])
    rows.metrics["loss"][404:] += 0.3
    log.add(engine.feed(rows[400:450]))
    assert [each.onset_step for each in log.incidents] == [404]
    loaded = reloaded(engine)
    log.add(loaded.fork(step, "resume", [], None, recorded=rows[step : step + 20]))
    assert [each.state for each in log.incidents] == [state]


def test_a_run_that_resumes_wrongly_again_and_again_keeps_one_small_incident() -> None:
    engine, log = forked(with_batches(healthy(500)))
    bad = other_draw()
    log.add(engine.feed(bad[400:500]))
    for seed in range(20, 24):
        log.add(engine.fork(450, "resume", [], engine.detectors_state(), recorded=bad[450:470]))
        log.add(engine.feed(with_batches(healthy(600, seed=seed))[450:500]))
    (incident,) = log.incidents
    assert (incident.state, incident.onset_step, len(incident.reasons)) == ("open", 400, 6)
    assert "restore to step 400" in incident.reasons[0]
    assert "restore to step 450" in incident.reasons[3]


def scheduled(steps: int = 600, *, rate: float | None = None) -> Rows:
    """A run with a schedule of the learning rate; `rate`: one that does not follow it."""
    rates = 1e-3 * np.cos(np.arange(steps) / steps) if rate is None else np.full(steps, rate)
    return with_batches(healthy(steps) | {"lr": rates})


@pytest.mark.parametrize("reason", ["resume", "rollback", "rewind"])
def test_a_learning_rate_that_differs_from_its_record_needs_a_person(reason: str) -> None:
    engine, log = forked(scheduled()[:500], reason=reason)
    log.add(engine.feed(scheduled(rate=5e-4)[400:]))
    (incident,) = log.incidents
    assert (incident.kind, incident.signal, incident.state) == (IncidentKind.REPLAY_MISMATCH, "lr", "open")
    assert (incident.onset_step, incident.detected_step, incident.peak_value) == (400, 400, 5e-4)
    loaded = reloaded(engine)
    assert loaded.state_dict() == engine.state_dict()


def test_a_learning_rate_that_was_declared_or_ordered_is_no_mismatch() -> None:
    declared, log = forked(scheduled()[:500])
    declared.declare(400, "learning_rate")
    log.add(declared.feed(scheduled(rate=5e-4)[400:]))
    policy = Policy(mode="auto", name="palm", allow_lr_scale=True, attempts_per_site=1)  # type: ignore[arg-type]
    engine, ordered = DetectionEngine(policy=policy), EffectLog()
    rows = scheduled()
    rows.metrics["loss"][460] = np.nan
    ordered.add(engine.feed(rows[:461], restorable=range(0, 500, 50)))
    ordered.add(engine.fork(350, "rollback", [rows[:350]], None, obeyed=1, recorded=rows[350:370]))
    ordered.add(engine.feed(rows[350:461]))
    assert [(each.state, each.lr_scale) for each in ordered.interventions] == [("recurred", None), ("ordered", 0.5)]
    rewind_to = ordered.interventions[1].rewind_to
    assert rewind_to is not None
    ordered.add(
        engine.fork(
            rewind_to, "rollback", [rows[:rewind_to]], None, obeyed=2, recorded=rows[rewind_to : rewind_to + 20]
        )
    )
    ordered.add(engine.feed(scheduled(rate=5e-4)[rewind_to : rewind_to + 20]))
    assert IncidentKind.REPLAY_MISMATCH not in {each.kind for each in [*log.incidents, *ordered.incidents]}


def test_what_is_declared_after_the_restore_ends_the_comparison() -> None:
    engine, log = forked(with_batches(healthy(500)))
    engine.declare(401, "batch_size")
    log.add(engine.feed(other_draw()[400:450]))
    assert (log.incidents, engine.recomputed.pending) == ([], None)


def test_a_smoothed_loss_is_not_compared_because_a_restart_loses_the_smoothing() -> None:
    columns = healthy(509)
    smoothed = {"loss": np.convolve(columns["loss"], np.ones(10) / 10, "valid")}
    engine, _ = forked(with_batches(smoothed))
    assert engine.recomputed.pending is None


def test_a_young_run_whose_noise_is_not_known_is_not_compared() -> None:
    rows = with_batches(healthy(30))
    engine, _ = forked(rows, 20)
    assert engine.recomputed.pending is None


# Splits and persistence


def eventful() -> Rows:
    columns = spiked(at=200, tail=8, steps=500)
    columns["loss"][330:334] = [np.nan, np.inf, 9.0, 2.4]
    columns["grad_norm"][410:420] *= 20
    columns["log_z"][440:] -= 2
    columns["loss"][150] += 1
    columns["lr"] = np.where(np.arange(500) < 260, 1e-3, 1e-4)
    return rows_of(columns)


def fed(engine: DetectionEngine, parts: list[Rows]) -> list[Effect]:
    return [effect for part in parts for effect in engine.feed(part, restorable=range(0, 500, 50))]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 499), max_size=12), st.integers(0, 499))
def test_any_split_and_a_save_anywhere_give_the_verdicts_of_one_pass(cuts: list[int], saved: int) -> None:
    rows = eventful()
    whole = DetectionEngine(policy=APPROVE)
    expected = fed(whole, [rows])
    bounds = sorted({0, saved, *cuts, len(rows)})
    parts = [rows[a:b] for a, b in pairwise(bounds)]
    split, effects = DetectionEngine(policy=APPROVE), []
    for part in parts:
        if part.steps[0] == saved:
            text = json.dumps(split.state_dict(), allow_nan=False)
            split = DetectionEngine(policy=APPROVE)
            split.load_state_dict(json.loads(text))
        effects += fed(split, [part])
    assert repr(effects) == repr(expected)
    assert split.state_dict() == whole.state_dict()


class ByColumns(DetectionEngine):
    """Judges every row as columns of length 1: the slow reference."""

    def feed_row(self, row: Row) -> list[Effect]:
        return self._feed(row.as_rows())


def every_metric(seed: int) -> Rows:
    """What an eventful run may report beside its signals, at times that show a slowdown."""
    rows, random, at = eventful(), np.random.default_rng(seed), np.arange(500)
    others = {
        "tokens": 8192.0 * (at + 1),
        "batch_index": at + 7.0 * (at > 100),
        "skipped": (random.random(500) < 0.03) * 1.0,
        "data_seconds": random.random(500) * (at > 250),
        "update_norm": np.exp(0.1 * random.standard_normal(500)) * np.where(at // 5 == 60, 40.0, 1.0),
    }
    metrics = {**rows.metrics, **others}
    times = 1.8e9 + np.cumsum(1.0 + random.random(500) + 2.0 * (at > 300) + 50.0 * (random.random(500) < 0.01))
    return Rows(rows.steps, metrics, dict.fromkeys(metrics, np.ones(500, dtype=bool)), times)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_single_row_is_judged_as_columns_are(seed: int) -> None:
    rows, settings = every_metric(seed), DetectionSettings(plateau_steps=180)
    policy = (AUTO, APPROVE, Policy())[seed]
    single, columns = DetectionEngine(settings, policy), ByColumns(settings, policy)
    for k in range(len(rows)):
        for engine in (single, columns):
            if k == 290:
                engine.declare(k + 5, "batch_size")
                engine.throughput.expect_pauses([k + 20])
            if k == 460:
                engine.fork(400, "rollback", [rows[:400]], None, recorded=rows[400:])
            if k == 480:
                engine.set_source(SourceFacts(smoothing=0.5))
        row, steps = rows[k : k + 1], range(0, k + 1, 50)
        assert repr(single.feed(row, restorable=steps)) == repr(columns.feed(row, restorable=steps)), k
        if k % 7 == 0:
            assert single.state_dict() == columns.state_dict(), k
    assert single.incidents.num_incidents >= 2


def test_the_state_is_small() -> None:
    engine = DetectionEngine(policy=AUTO)
    sizes = []
    for part in rows_of(spiked(at=700, steps=2000)).split(37):
        engine.feed(part, restorable=range(0, 2000, 50))
        sizes.append(len(json.dumps(engine.state_dict(), allow_nan=False)))
    assert max(sizes) < 20_000


def test_the_state_stays_small_in_a_run_that_keeps_every_checkpoint() -> None:
    engine = DetectionEngine(policy=AUTO)
    engine.feed(rows_of(spiked(at=700, steps=2000)), restorable=range(0, 1_000_000, 50))
    assert len(json.dumps(engine.state_dict(), allow_nan=False)) < 20_000
    steps = [each.step for each in engine.restorable]
    assert (steps[0], steps[-1]) == (0, 999_950)


# How the rows of a source were made


def smoothed(loss: Any, weight: float) -> Any:
    values = loss.copy()
    for k in range(1, len(loss)):
        values[k] = weight * values[k - 1] + (1 - weight) * loss[k]
    return values


def found_in(columns: dict[str, Any], facts: SourceFacts, steps: Any = None, policy: Policy | None = None) -> EffectLog:
    engine, log = DetectionEngine(policy=policy), EffectLog()
    engine.declare(0, SOURCE, facts.to_details())
    at = np.arange(len(columns["loss"])) if steps is None else steps
    for part in Rows.of(at, **columns).split(50):
        log.add(engine.feed(part, restorable=range(0, int(part.steps[-1]), 50)))
    return log


@pytest.mark.parametrize("weight", [0.9, 0.99])
def test_a_spike_in_a_smoothed_loss_is_found_as_early_as_in_the_raw_one(weight: float) -> None:
    columns = spiked(at=300, height=0.2, tail=5.0, noise=0.02)
    (raw,) = detected(columns).incidents
    columns["loss"] = smoothed(columns["loss"], weight)
    assert detected(columns).incidents == []
    (found,) = found_in(columns, SourceFacts(smoothing=weight)).incidents
    assert (found.onset_step, found.detected_step) == (raw.onset_step, raw.detected_step)
    assert found.peak_value == pytest.approx(raw.peak_value)
    assert any("the detection undoes it" in reason for reason in found.reasons)


def test_an_onset_in_a_sampled_loss_lies_right_after_the_row_before() -> None:
    columns = {name: column[9::10] for name, column in spiked(at=1505, tail=600.0, steps=3000).items()}
    (found,) = found_in(columns, SourceFacts(stride=10), steps=np.arange(9, 3000, 10)).incidents
    assert (found.onset_step, found.detected_step) == (1500, 1509)
    assert "The loss is logged every 10th step: an onset is known to within 10 steps." in found.reasons


def test_no_rollback_goes_to_a_step_that_may_lie_after_the_onset() -> None:
    columns = {name: column[9::10] for name, column in spiked(at=1505, tail=6000.0, steps=3000).items()}
    for facts, kind in ((SourceFacts(), "rollback"), (SourceFacts(stride=10), "hold")):
        engine, log = DetectionEngine(policy=AUTO), EffectLog()
        engine.declare(0, SOURCE, facts.to_details())
        log.add(engine.feed(Rows.of(np.arange(9, 3000, 10), **columns), restorable=[1508]))
        assert log.interventions[0].kind == kind


def test_a_policy_waits_for_rows_where_a_row_is_not_every_step() -> None:
    waits = []
    for facts in (SourceFacts(), SourceFacts(stride=50)):
        steps = np.arange(0, 30_000, 50)
        columns = spiked(at=300, height=20.0, tail=3.0)
        log = found_in(columns, facts, steps=steps, policy=Policy(mode="auto", name="palm"))  # type: ignore[arg-type]
        waits.append(len(log.interventions))
    assert waits == [1, 0]


def test_a_loss_of_exactly_zero_is_not_finite_where_nan_is_filtered() -> None:
    columns = healthy(400)
    columns["loss"][300] = 0.0
    assert detected(columns).incidents == []
    (found,) = found_in(columns, SourceFacts(nan_filtered=True)).incidents
    assert (found.kind, found.detected_step) == (IncidentKind.NONFINITE, 300)
    assert any("exactly 0" in reason for reason in found.reasons)


def test_no_rollback_is_ordered_where_the_axis_counts_something_else() -> None:
    columns = spiked(at=300, tail=600.0)
    assert found_in(columns, SourceFacts(), policy=AUTO).interventions
    log = found_in(columns, SourceFacts(clock=Clock.SAMPLES), policy=AUTO)
    assert log.interventions == []
    assert any("counts samples" in reason for reason in log.incidents[0].reasons)


def test_facts_of_a_source_re_baseline_nothing() -> None:
    rows, engines = rows_of(healthy(400)), (DetectionEngine(), DetectionEngine())
    for engine in engines:
        engine.feed(rows[:300])
    engines[0].declare(300, SOURCE, SourceFacts(stride=10, averaged=True, nan_filtered=True).to_details())
    for engine in engines:
        engine.feed(rows[300:])
    states = [engine.state_dict()["detectors"] for engine in engines]
    assert states[0].pop("source")["facts"]["stride"] == 10
    assert states[0] == states[1]


def test_the_state_of_a_loop_that_reports_every_step_says_nothing_of_a_source() -> None:
    assert "source" not in DetectionEngine().state_dict()["detectors"]


@pytest.mark.parametrize("facts", [SourceFacts(smoothing=0.9), SourceFacts(stride=10, nan_filtered=True)])
def test_facts_of_a_source_survive_the_stored_state_and_a_fork(facts: SourceFacts) -> None:
    columns = spiked(at=300, tail=600.0)
    columns["loss"] = smoothed(columns["loss"], facts.smoothing)
    rows, engine = rows_of(columns), DetectionEngine()
    engine.feed(rows[:100])
    early = engine.detectors_state()
    engine.declare(100, SOURCE, facts.to_details())
    engine.feed(rows[100:250])
    again = reloaded(engine)
    assert engine.feed(rows[250:]) == again.feed(rows[250:])
    assert again.state_dict() == engine.state_dict()
    again.fork(200, "rewind", [rows[100:200]], early)
    assert again.detectors.source.facts == again.source == facts
