"""Skipped updates: the counting alone, and what the engine makes of them, in both directions."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.gating import MAX_SKIPPED, SKIP_WINDOW
from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection import DetectionEngine, InterventionChanged, Policy, Rows
from monitor.detection.scoring.skipped_updates import SkippedUpdates
from tests.monitor.detection.runs import EffectLog, detected, healthy, rows_of

LAST = MAX_SKIPPED - 1


def _run(at: Mapping[int, float], *, skipped: bool = True, loss: float = np.nan, length: int = 500) -> dict[str, Any]:
    """A healthy run, with this loss at these steps, whose updates were skipped."""
    columns: dict[str, Any] = healthy(length)
    for step in at:
        columns["loss"][step] = loss
    if skipped:
        columns["skipped"] = np.array([at.get(step) for step in range(length)], dtype=np.float64)
    return columns


def _once(*steps: int) -> dict[int, float]:
    return dict.fromkeys(steps, 1.0)


@pytest.mark.parametrize("loss", [np.nan, np.inf, 9.0])
def test_a_spike_whose_update_was_skipped_is_no_incident(loss: float) -> None:
    steps = _once(*range(300, 300 + LAST))
    assert detected(_run(steps, loss=loss)).incidents == []
    assert len(detected(_run(steps, loss=loss, skipped=False)).incidents) == 1


def test_the_cap_is_an_incident_that_begins_at_the_first_skipped_update() -> None:
    (incident,) = detected(_run(_once(*range(300, 308)))).incidents
    assert (incident.kind, incident.onset_step) == (IncidentKind.NONFINITE, 300)
    assert incident.detected_step == 300 + LAST
    assert "skipped 5 updates within 50 steps, the first at step 300" in " ".join(incident.reasons)


def test_the_cap_is_an_incident_of_the_loss_even_if_that_is_in_its_band() -> None:
    columns = _run({})
    columns["skipped"][300:400:10] = 1.0
    incident = detected(columns).incidents[0]
    assert (incident.onset_step, incident.detected_step) == (300, 340)


def test_skips_far_apart_are_never_an_incident() -> None:
    columns = _run(_once(*range(50, 500, SKIP_WINDOW // LAST + 1)))
    assert detected(columns).incidents == []


def test_a_skipped_row_teaches_the_detectors_nothing() -> None:
    columns = _run(_once(300, 301, 303), loss=9.0)
    without = {name: np.delete(column, [300, 301, 303]) for name, column in columns.items()}
    one, other = DetectionEngine(), DetectionEngine()
    one.feed(rows_of(columns))
    other.feed(rows_of(without))
    for name in ("loss", "grad_norm", "log_z"):
        assert one.detectors.by_signal[name].baseline.count == other.detectors.by_signal[name].baseline.count
        assert one.detectors.by_signal[name].baseline.level == other.detectors.by_signal[name].baseline.level


def test_the_policy_rolls_back_at_the_cap_and_not_before() -> None:
    def orders(num_skipped: int) -> list[Any]:
        engine = DetectionEngine(policy=Policy(mode="auto"))  # type: ignore[arg-type]
        rows = rows_of(_run(_once(*range(300, 300 + num_skipped))))
        effects = engine.feed(rows, restorable=list(range(0, 300, 20)))
        return [each.intervention for each in effects if isinstance(each, InterventionChanged)]

    assert orders(LAST) == []
    (order, *_) = orders(MAX_SKIPPED + 3)
    assert order.kind is OrderKind.ROLLBACK
    assert order.decided_step == 300 + LAST
    assert order.rewind_to is not None
    assert order.rewind_to < 300


def test_an_update_that_was_taken_is_judged_as_ever() -> None:
    columns = _run(_once(300))
    columns["loss"][302] = np.nan
    (incident,) = detected(columns).incidents
    assert (incident.onset_step, incident.detected_step) == (302, 302)


def test_a_row_of_several_updates_is_withheld_only_if_all_of_them_were_skipped() -> None:
    rows = Rows.of([10, 20, 30], loss=[2.0, 2.0, 2.0], skipped=[None, 3.0, 10.0])
    found, skips = SkippedUpdates().apply(rows)
    assert skips.caps == {2: 20}
    assert found.present["loss"].tolist() == [True, True, True]
    found, skips = SkippedUpdates().apply(Rows.of([1, 3, 5], loss=[2.0, 2.0, 2.0], skipped=[None, 1.0, 2.0]))
    assert found.present["loss"].tolist() == [True, True, False]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, None])
def test_what_is_no_number_of_skipped_updates_changes_nothing(value: float | None) -> None:
    rows = Rows.of([1], loss=[np.nan], skipped=[value])
    found, skips = SkippedUpdates().apply(rows)
    assert (found, skips.withheld, skips.caps) == (rows, None, {})


@given(st.lists(st.sampled_from([None, 1.0]), min_size=1, max_size=120), st.data())
def test_any_split_of_a_stream_gives_the_same(skipped: list[float | None], data: st.DataObject) -> None:
    rows = Rows.of(list(range(len(skipped))), loss=[2.0] * len(skipped), skipped=skipped)
    cut = data.draw(st.integers(1, len(skipped)))
    whole, parts = SkippedUpdates(), SkippedUpdates()
    found, skips = whole.apply(rows)
    first, first_skips = parts.apply(rows[:cut])
    parts = SkippedUpdates.from_dict(json.loads(json.dumps(parts.to_dict())))
    present, caps = first.present["loss"].tolist(), dict(first_skips.caps)
    if cut < len(skipped):
        second, second_skips = parts.apply(rows[cut:])
        present += second.present["loss"].tolist()
        caps |= {cut + k: step for k, step in second_skips.caps.items()}
    assert (present, caps) == (found.present["loss"].tolist(), dict(skips.caps))
    assert parts == whole


def test_a_stored_engine_goes_on_counting() -> None:
    rows = rows_of(_run(_once(*range(300, 308))))
    engine, log = DetectionEngine(), EffectLog()
    engine.feed(rows[:303])
    restored = DetectionEngine()
    restored.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    log.add(restored.feed(rows[303:]))
    assert [each.onset_step for each in log.incidents] == [300]
