"""Held-out losses that rise while the training loss falls."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.states import IncidentKind, IncidentState, OrderMode, Outcome
from monitor.detection import DetectionEngine, Policy
from tests.monitor.detection.runs import EffectLog, begun, detected, healthy, rows_of

EVERY = 20


def evaluated(steps: int = 800, *, rise: float = 0.0, at: int = 400, scatter: float = 0.004) -> dict[str, Any]:
    """A healthy run with an evaluation every EVERY steps, whose held-out loss rises by `rise` from step `at` on."""
    columns = healthy(steps)
    random = np.random.default_rng(1)
    held_out: list[float | None] = [None] * steps
    for step in range(EVERY - 1, steps, EVERY):
        level = 2.4 + 3.3 * np.exp(-step / 90) + rise * max(0, step - at) / 200
        held_out[step] = float(level + scatter * random.standard_normal())
    return columns | {"held_out_loss": held_out}


def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_a_warning_that_no_policy_answers() -> None:
    log = detected(evaluated(rise=0.1), policy=Policy(mode=OrderMode.AUTO))
    (incident,) = log.incidents
    assert (incident.kind, incident.signal) == (IncidentKind.HELD_OUT_RISE, "held_out_loss")
    assert incident.state is IncidentState.WARNING
    assert 400 <= incident.onset_step <= incident.detected_step <= 620
    assert incident.expected == pytest.approx(2.43, abs=0.03)
    assert log.interventions == []


@pytest.mark.parametrize("scatter", [0.0005, 0.004, 0.05])
def test_evaluations_that_fall_or_scatter_are_no_incident(scatter: float) -> None:
    assert detected(evaluated(2_000, scatter=scatter)).incidents == []


def test_where_the_training_loss_rises_as_well_the_incident_is_another_one() -> None:
    columns = evaluated(rise=0.4)
    columns["loss"] += np.where(np.arange(800) >= 400, 0.4, 0.0)
    kinds = {each.kind for each in detected(columns).incidents}
    assert kinds == {IncidentKind.LOSS_SPIKE}


def test_a_held_out_loss_that_is_not_finite_is_an_incident_at_once() -> None:
    columns = evaluated(200)
    columns["held_out_loss"][EVERY * 4 - 1] = float("nan")
    (incident,) = detected(columns).incidents
    assert (incident.kind, incident.detected_step) == (IncidentKind.HELD_OUT_RISE, EVERY * 4 - 1)
    assert np.isnan(incident.peak_value)


def test_values_at_the_end_of_the_range_of_floats_are_read_without_a_warning() -> None:
    columns = evaluated(400)
    columns["loss"][300:] = 1e308
    columns["held_out_loss"] = [value and 1e308 * (-1) ** step for step, value in enumerate(columns["held_out_loss"])]
    engine = DetectionEngine()
    engine.feed(rows_of(columns))
    assert json.dumps(engine.state_dict(), allow_nan=False)


def test_it_ends_as_recovered_when_the_level_before_it_is_back() -> None:
    columns = evaluated(1_200, rise=0.1)
    for step in range(700 + EVERY - 1, 1_200, EVERY):
        columns["held_out_loss"][step] = 2.4 + step / 1e6
    (incident,) = detected(columns).incidents
    assert (incident.state, incident.outcome) == (IncidentState.CLOSED, Outcome.RECOVERED)
    assert 700 < (incident.end_step or 0) < 800


def test_a_rise_that_stays_is_not_over_when_the_lowest_level_is_too_old_to_be_among_the_evaluations() -> None:
    columns = evaluated(2_400, rise=0.1)
    for step in range(800 + EVERY - 1, 2_400, EVERY):
        columns["held_out_loss"][step] -= 0.1 * (step - 800) / 200  # it stays where it is at step 800
    rows, engine, log = rows_of(columns), DetectionEngine(), EffectLog()
    log.add(engine.feed(rows))
    (incident,) = log.incidents
    assert (incident.state, incident.end_step) == (IncidentState.WARNING, None)
    log.add(engine.fork(incident.onset_step + 1, "rollback", [], None))
    assert engine.held_out.evaluations == []
    restored = DetectionEngine()
    restored.load_state_dict(engine.state_dict())
    assert restored.held_out.open == log.incidents[0]


def test_a_rollback_to_before_its_onset_ends_it_and_forgets_the_evaluations_of_the_branch() -> None:
    engine, log = begun(rows_of(evaluated(rise=0.1)))
    (incident,) = log.incidents
    log.add(engine.fork(incident.onset_step - 50, "rollback", [], None))
    assert log.incidents[0].state is IncidentState.CLOSED
    assert all(each.step < incident.onset_step - 50 for each in engine.held_out.evaluations)


def test_an_evaluation_that_is_reported_again_with_every_row_counts_once() -> None:
    columns = evaluated(1_600, scatter=0.02)
    engine, repeating = DetectionEngine(), DetectionEngine()
    assert engine.feed(rows_of(columns)) == []
    known = np.array([np.nan if value is None else value for value in columns["held_out_loss"]])
    columns["held_out_loss"] = [None] * (EVERY - 1) + list(np.repeat(known[EVERY - 1 :: EVERY], EVERY))[: 1 - EVERY]
    assert repeating.feed(rows_of(columns)) == []
    assert repeating.held_out.evaluations == engine.held_out.evaluations


def test_evaluations_of_neighbouring_rows_are_thinned() -> None:
    columns = healthy(800)
    columns["held_out_loss"] = list(np.linspace(3.0, 2.5, 800))
    engine = DetectionEngine()
    assert engine.feed(rows_of(columns)) == []
    assert set(np.diff([each.step for each in engine.held_out.evaluations])) == {8}


@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=12), saved=st.booleans())
def test_however_the_rows_are_split_the_incidents_are_the_same(sizes: list[int], saved: bool) -> None:
    columns = evaluated(rise=0.1)
    columns["loss"][500:520] += 1.5  # so that incidents of both kinds take numbers
    rows, whole = rows_of(columns), DetectionEngine()
    expected, found = whole.feed(rows), []
    engine, start = DetectionEngine(), 0
    for size in [*sizes, len(rows)]:
        found += engine.feed(rows[start : start + size]) if start < len(rows) else []
        start += size
        if saved:
            state = engine.state_dict()
            engine = DetectionEngine()
            engine.load_state_dict(state)
    assert EffectLog(found).incidents == EffectLog(expected).incidents
    assert engine.held_out.to_dict() == whole.held_out.to_dict()
