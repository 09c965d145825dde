"""Advisory signals warn before the loss moves, and change nothing else that the detection does."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentKind, IncidentState, InterventionState, Outcome
from monitor.detection import DetectionEngine, Policy
from monitor.detection.scoring.signals import MAX_ADVISORY
from monitor.detection.settings import Mode
from tests.monitor.detection.runs import EffectLog, detected, healthy, rows_of, spiked

STEPS = 600


def with_advisory(columns: dict[str, Any], seed: int = 9) -> dict[str, Any]:
    random, num = np.random.default_rng(seed), len(columns["loss"])
    return columns | {
        "attention_logit_max": 8.0 + random.gumbel(0.0, 0.3, num),
        "layer_grad_norm/blocks 0-3": 0.3 * np.exp(0.1 * random.standard_normal(num)),
        "source_loss/web": 2.5 + 0.05 * random.standard_normal(num),
    }


def excursion(name: str = "attention_logit_max", at: int = 400, rows: int = 12, height: float = 40.0) -> dict[str, Any]:
    columns = with_advisory(healthy(STEPS))
    columns[name] = columns[name].copy()
    columns[name][at : at + rows] += height
    return columns


def test_a_quiet_run_has_no_incidents_with_them() -> None:
    assert detected(with_advisory(healthy(2000))).incidents == []


@pytest.mark.parametrize("name", ["attention_logit_max", "layer_grad_norm/blocks 0-3", "source_loss/web"])
def test_one_that_leaves_its_band_is_an_early_warning_and_no_policy_answers_it(name: str) -> None:
    log = detected(excursion(name), policy=Policy(mode=Mode.AUTO))
    (incident,) = log.incidents
    assert (incident.kind, incident.signal) == (IncidentKind.EARLY_WARNING, name)
    assert (incident.onset_step, incident.state, incident.outcome) == (400, IncidentState.CLOSED, Outcome.RECOVERED)
    assert any("save a checkpoint now" in reason for reason in incident.reasons)
    assert log.interventions == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_warns_and_does_not_roll_back(value: float) -> None:
    columns = excursion(height=0.0)
    columns["attention_logit_max"][450:455] = value
    log = detected(columns, policy=Policy(mode=Mode.AUTO))
    (incident,) = log.incidents
    assert (incident.kind, incident.onset_step) == (IncidentKind.EARLY_WARNING, 450)
    assert log.interventions == []


def test_when_the_loss_follows_its_incident_is_dated_back_and_the_warning_ends() -> None:
    columns = with_advisory(spiked(at=404, steps=STEPS))
    columns["attention_logit_max"][400:] += 40.0
    log = detected(columns, policy=Policy(mode=Mode.AUTO))
    warning, spike = log.incidents[:2]
    assert (warning.kind, warning.state) == (IncidentKind.EARLY_WARNING, IncidentState.CLOSED)
    assert (spike.kind, spike.onset_step) == (IncidentKind.LOSS_SPIKE, 400)
    assert any(reason.startswith("attention_logit_max left its band first, at step 400") for reason in spike.reasons)


def core(log: EffectLog) -> list[tuple[Any, ...]]:
    return [
        (each.kind, each.signal, each.detected_step, each.end_step, each.outcome)
        for each in log.incidents
        if each.kind is not IncidentKind.EARLY_WARNING
    ]


@pytest.mark.parametrize("shape", [healthy, spiked])
def test_they_change_no_other_incident(shape: Callable[..., dict[str, Any]]) -> None:
    plain = shape(steps=STEPS)
    watched = with_advisory(plain)
    watched["source_loss/web"][305:420] += 3.0  # also while the spike is followed and verified
    assert core(detected(watched)) == core(detected(plain))


@pytest.mark.parametrize("is_open", [False, True])
def test_they_leave_the_cap_of_skipped_updates_to_the_policy(is_open: bool) -> None:
    columns = with_advisory(healthy(STEPS))
    columns["skipped"] = np.zeros(STEPS)
    columns["skipped"][300:400:10] = 1.0
    if is_open:
        columns["source_loss/web"][330:350] += 3.0  # its warning is open at the fifth skipped update
    else:
        columns["attention_logit_max"][300:400:10] += 2.0
    incidents = [each for each in detected(columns).incidents if each.kind is not IncidentKind.EARLY_WARNING]
    assert [each.onset_step for each in incidents] == [300]


def test_a_warning_of_a_series_that_ends_is_closed_and_hides_no_other() -> None:
    columns = with_advisory(healthy(3200))
    web = list(columns["source_loss/web"])
    columns["source_loss/web"] = [*web[:400], *(value + 3.0 for value in web[400:406]), *[None] * 2794]
    columns["attention_logit_max"][2800:2812] += 40.0
    ended, other = detected(columns).incidents
    assert (ended.signal, ended.state, ended.outcome) == ("source_loss/web", IncidentState.CLOSED, Outcome.ONGOING)
    assert (other.signal, other.onset_step) == ("attention_logit_max", 2800)


def test_an_open_warning_does_not_hold_up_the_verification_of_a_rollback() -> None:
    engine, log = DetectionEngine(None, Policy(mode=Mode.AUTO)), EffectLog()
    columns = with_advisory(spiked(at=300, height=4.0, tail=1e9, steps=320))
    log.add(engine.feed(rows_of(columns), restorable=range(0, 300, 50)))
    (order,) = [each for each in log.interventions if each.state is InterventionState.ORDERED]
    assert order.rewind_to is not None
    state = None
    history = [rows_of({name: column[: order.rewind_to] for name, column in columns.items()})]
    log.add(engine.fork(order.rewind_to, "rollback", history, state, obeyed=order.number))
    again = with_advisory(healthy(800))
    again["attention_logit_max"][order.rewind_to + 40 :] = np.inf
    after = {name: column[order.rewind_to :] for name, column in again.items()}
    log.add(engine.feed(rows_of(after, start=order.rewind_to)))
    assert log.interventions[order.number - 1].state is InterventionState.VERIFIED
    assert engine.incidents.open is not None


def test_the_split_into_reports_and_a_saved_state_change_nothing() -> None:
    columns = excursion()
    whole = detected(columns)
    assert detected(columns, size=7).incidents == whole.incidents
    engine, log = DetectionEngine(None, None), EffectLog()
    for part in rows_of(columns).split(50):
        log.add(engine.feed(part, restorable=range(0, int(part.steps[-1]) + 1, 50)))
        state = json.loads(json.dumps(engine.state_dict(), allow_nan=False))
        engine = DetectionEngine(None, None)
        assert engine.load_state_dict(state) == frozenset()
    assert log.incidents == whole.incidents


def test_one_that_begins_late_and_is_measured_every_few_steps_is_judged_too() -> None:
    columns = with_advisory(healthy(3000))
    every_tenth = np.arange(3000) % 10 == 0
    values = np.where(every_tenth, columns["attention_logit_max"], np.nan)
    values[2500:2600] = np.where(every_tenth[2500:2600], 60.0, np.nan)
    columns["attention_logit_max"] = [None if np.isnan(value) or k < 200 else value for k, value in enumerate(values)]
    (incident,) = detected(columns).incidents
    assert (incident.signal, incident.kind) == ("attention_logit_max", IncidentKind.EARLY_WARNING)
    assert 2500 <= incident.detected_step <= 2520


def test_only_so_many_are_judged_and_those_without_them_pay_nothing() -> None:
    columns = healthy(100)
    engine = DetectionEngine(None, None)
    engine.feed(rows_of(columns))
    assert set(engine.detectors.by_signal) == {"loss", "grad_norm", "log_z"}
    many = {f"source_loss/{number:02}": columns["loss"] for number in range(MAX_ADVISORY + 4)}
    engine.feed(rows_of(columns | many, start=100))
    judged = [name for name in engine.detectors.by_signal if name.startswith("source_loss/")]
    assert judged == [f"source_loss/{number:02}" for number in range(MAX_ADVISORY)]
