"""Stalls and slowdowns stand beside the incidents of the signals: they are numbered with them and order nothing."""

import json

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection import DetectionEngine, Effect, Incident, IncidentChanged, InterventionChanged, Mode, Policy
from monitor.detection.encoding import dump
from monitor.detection.incidents.throughput_incidents import Sign, Silence
from monitor.detection.rows import Rows
from tests.monitor.detection.runs import reloaded
from tests.monitor.detection.throughput.runs import durations, timed

SILENCE = Silence(seconds=700.0, limit=120.0, sign=Sign.HEARTBEATS)


def engine_after(rows: Rows) -> DetectionEngine:
    engine = DetectionEngine(policy=Policy(mode=Mode.AUTO))
    engine.feed(rows, restorable=[0, 50])
    return engine


def last(effects: list[Effect]) -> Incident:
    (effect,) = effects[-1:]
    assert isinstance(effect, IncidentChanged)
    return effect.incident


def slow_run(*, spike: bool = False) -> Rows:
    """Twice as slow from step 400 on, with a NaN at step 420."""
    seconds = durations(800)
    seconds[400:] *= 2.5
    rows = timed(seconds, tokens=np.arange(800.0).tolist())
    if spike:
        rows.metrics["loss"][420] = np.nan
    return rows


def test_a_slowdown_is_an_open_incident_in_tokens_per_second_without_any_intervention() -> None:
    effects = DetectionEngine(policy=Policy(mode=Mode.AUTO)).feed(slow_run(), restorable=[0, 50])
    assert not any(isinstance(effect, InterventionChanged) for effect in effects)
    incident = last(effects)
    assert (incident.kind, incident.state, incident.signal) == (IncidentKind.SLOWDOWN, IncidentState.OPEN, "throughput")
    assert incident.expected == pytest.approx(1.0, rel=0.05)
    assert incident.peak_value == pytest.approx(0.4, rel=0.05)
    assert "2.5" in incident.reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 13, 500])
def test_a_slowdown_hides_no_nan_and_their_numbers_do_not_depend_on_the_grouping(cut: int) -> None:
    def concluded(cut: int) -> list[Effect]:
        engine = DetectionEngine(policy=Policy(mode=Mode.AUTO))
        engine.set_restorable([0, 50, 100, 150, 200])
        effects: list[Effect] = []
        for part in slow_run(spike=True).split(cut):
            restored = DetectionEngine(policy=Policy(mode=Mode.AUTO))
            restored.load_state_dict(json.loads(json.dumps(engine.state_dict())))
            effects += restored.feed(part)
            engine = restored
        return effects

    effects = concluded(cut)
    assert repr(effects) == repr(concluded(800))
    kinds = {each.incident.number: each.incident.kind for each in effects if isinstance(each, IncidentChanged)}
    assert kinds == {1: IncidentKind.NONFINITE, 2: IncidentKind.SLOWDOWN}
    assert any(isinstance(effect, InterventionChanged) for effect in effects)


def test_a_stall_is_opened_once_and_ends_with_the_next_row() -> None:
    rows = timed(durations(200))
    engine = engine_after(rows[:100])
    opened = last(engine.report_stall(SILENCE))
    assert engine.report_stall(SILENCE) == []
    assert (opened.number, opened.kind, opened.onset_step) == (1, IncidentKind.STALL, 99)
    later = rows[100:]
    assert later.times is not None
    later.times[:] += 5000.0
    closed = last(engine.feed(later))
    assert (closed.number, closed.state, closed.outcome) == (1, IncidentState.CLOSED, Outcome.RECOVERED)
    assert closed.end_step == 100
    assert closed.peak_value == pytest.approx(5001.0, abs=1.0)
    assert engine.throughput.stall is None


def test_an_open_stall_survives_a_restart_of_the_collector_and_ends_with_the_run() -> None:
    engine = engine_after(timed(durations(100)))
    opened = last(engine.report_stall(SILENCE))
    restored = reloaded(engine)
    assert restored.throughput.stall == opened
    assert last(restored.end_run("It was stopped.")).outcome is Outcome.ONGOING
    assert restored.end_run("It was stopped.") == []


def test_before_the_first_step_there_is_a_stall_at_step_0() -> None:
    incident = last(DetectionEngine().report_stall(Silence(700.0, 600.0, Sign.NOTHING)))
    assert (incident.onset_step, incident.detected_step) == (0, 0)
    assert "before the first step" in incident.reasons[0]


def test_an_announced_pause_is_neither_a_usual_gap_nor_slow() -> None:
    seconds = durations(400)
    seconds[[100, 200, 300]] = 3000.0
    announced, not_announced = DetectionEngine(), DetectionEngine()
    announced.throughput.expect_pauses([100, 200, 300])
    for engine in (announced, not_announced):
        assert engine.feed(timed(seconds)) == []
    assert (announced.throughput.gaps.limit([]), not_announced.throughput.gaps.limit([])) == (120.0, 4500.0)


def test_the_part_of_the_state_is_small() -> None:
    assert len(json.dumps(dump(engine_after(slow_run()).throughput))) < 12_000
