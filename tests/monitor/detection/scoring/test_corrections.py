"""Rows that are not one per step as the loop computed them, and rows whose update was skipped."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lossguard.vocabulary.metrics import MAX_SKIPPED, SKIP_WINDOW
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection import DetectionEngine, InterventionChanged, Policy, Rows
from monitor.detection.encoding import dump, load
from monitor.detection.rows import Floats
from monitor.detection.scoring.corrections import SkippedUpdates, SourceCorrection
from tests.monitor.detection.runs import EffectLog, detected, healthy, reloaded, rows_of

SMOOTHED = SourceFacts(smoothing=0.9)
FILTERED = SourceFacts(nan_filtered=True)


def smoothed(loss: Floats, weight: float = 0.9) -> Floats:
    values = loss.copy()
    for k in range(1, len(loss)):
        values[k] = weight * values[k - 1] + (1 - weight) * loss[k]
    return values


def corrected(facts: SourceFacts, *losses: float | None, **others: list[float | None]) -> list[float | None]:
    """The losses after the correction; None for one that is not reported."""
    rows = SourceCorrection(facts).apply(Rows.of(np.arange(len(losses)), loss=list(losses), **others))
    return [x if p else None for x, p in zip(rows.metrics["loss"].tolist(), rows.present["loss"], strict=True)]


def test_rows_of_a_loop_that_reports_every_step_are_left_alone() -> None:
    rows = Rows.of([0, 1], loss=[0.0, None])
    assert SourceCorrection().apply(rows) is rows
    assert SourceCorrection(SourceFacts(stride=10, averaged=True)).apply(rows) is rows


def test_a_smoothing_is_undone_exactly() -> None:
    loss = 3.0 + np.random.default_rng(0).standard_normal(100)
    rows = SourceCorrection(SMOOTHED).apply(Rows.of(np.arange(100), loss=smoothed(loss)))
    assert rows.metrics["loss"] == pytest.approx(loss)


def test_a_weight_that_is_a_little_wrong_keeps_the_level() -> None:
    loss = 3.0 + 0.05 * np.random.default_rng(0).standard_normal(2000)
    rows = SourceCorrection(SourceFacts(smoothing=0.93)).apply(Rows.of(np.arange(2000), loss=smoothed(loss)))
    assert rows.metrics["loss"].mean() == pytest.approx(3.0, abs=0.01)


@given(
    cuts=st.sets(st.integers(1, 49), max_size=5),
    filtered=st.booleans(),
    zeros=st.sets(st.integers(0, 49)),
    missing=st.sets(st.integers(16, 49)),
)
@example(cuts={20, 21}, filtered=True, zeros=set(), missing={20})
def test_any_split_gives_the_same_rows_also_through_the_stored_state(
    cuts: set[int], filtered: bool, zeros: set[int], missing: set[int]
) -> None:
    """A part without any loss has no column of it."""
    loss = [None if k in missing else 0.0 if k in zeros else 3.0 + 0.1 * math.sin(k * k) for k in range(50)]
    facts = SourceFacts(smoothing=0.9, nan_filtered=filtered)
    whole = SourceCorrection(facts).apply(Rows.of(np.arange(50), loss=loss, grad_norm=[1.0] * 50))
    correction, values, present = SourceCorrection(facts), list[float](), list[bool]()
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 50], strict=True):
        columns: dict[str, Any] = {"grad_norm": [1.0] * (last - first), "loss": loss[first:last]}
        if not any(value is not None for value in columns["loss"]):
            del columns["loss"]
        part = correction.apply(Rows.of(np.arange(first, last), **columns))
        values += part.metrics.get("loss", np.full(last - first, np.nan)).tolist()
        present += part.present.get("loss", np.zeros(last - first, dtype=bool)).tolist()
        correction = SourceCorrection.from_dict(json.loads(json.dumps(correction.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(values, whole.metrics["loss"])
    assert present == whole.present["loss"].tolist()


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_loss_that_is_left_out_is_found_however_the_rows_are_reported(size: int) -> None:
    """Also in a report that has no loss in any row, and so no column of it."""
    columns = healthy(60)
    columns["loss"] = [None if 40 <= step < 48 else value for step, value in enumerate(columns["loss"])]
    engine, log = DetectionEngine(), EffectLog()
    engine.set_source(FILTERED)
    for part in rows_of(columns).split(size):
        reported = {name for name, present in part.present.items() if present.any()}
        metrics = {name: column for name, column in part.metrics.items() if name in reported}
        present = {name: column for name, column in part.present.items() if name in reported}
        log.add(engine.feed(Rows(part.steps, metrics, present)))
    (incident,) = log.incidents
    assert (incident.kind, incident.detected_step, incident.end_step) == (IncidentKind.NONFINITE, 40, 47)


def test_zero_is_a_filtered_nan_where_the_loss_cannot_have_got_there() -> None:
    assert corrected(FILTERED, 3.0, 0.0, 2.9) == pytest.approx([3.0, math.nan, 2.9], nan_ok=True)
    assert corrected(FILTERED, 0.0, 0.0) == pytest.approx([math.nan, math.nan], nan_ok=True)
    assert corrected(FILTERED, 0.02, 0.0) == [0.02, 0.0]
    assert corrected(SourceFacts(), 3.0, 0.0) == [3.0, 0.0]


def test_a_loss_that_is_left_out_where_it_always_came_with_the_grad_norm_is_a_filtered_nan() -> None:
    paired = corrected(FILTERED, *[3.0] * 16, None, grad_norm=[1.0] * 17)
    assert paired[-1] is not None
    assert math.isnan(paired[-1])
    assert corrected(FILTERED, *[3.0] * 16, None, grad_norm=[*[1.0] * 16, None])[-1] is None  # an evaluation
    assert corrected(FILTERED, *[3.0, None] * 20, grad_norm=[1.0] * 40)[-1] is None  # logged every other row


def test_nan_in_a_smoothed_loss_stays_nan_and_what_follows_begins_anew() -> None:
    assert corrected(SMOOTHED, 3.0, math.nan, 3.0, 3.1) == pytest.approx([3.0, math.nan, 3.0, 4.0], nan_ok=True)


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


def test_updates_that_were_skipped_before_any_was_taken_are_the_search_for_a_loss_scale() -> None:
    """A GradScaler begins with 65,536 and halves it as often as the gradients overflow."""
    search = _run(_once(*range(9)), loss=10.0)
    search["grad_norm"][:9] = np.inf
    assert detected(search).incidents == []
    (incident,) = detected(_run(_once(*range(80)), loss=10.0)).incidents  # none is ever taken
    assert (incident.onset_step, incident.detected_step) == (SKIP_WINDOW, SKIP_WINDOW + LAST)
    (incident,) = detected(_run(_once(0, *range(2, 9)))).incidents
    assert (incident.onset_step, incident.detected_step) == (2, 2 + LAST)


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
    parts = load(SkippedUpdates, json.loads(json.dumps(dump(parts))))
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
    restored = reloaded(engine)
    log.add(restored.feed(rows[303:]))
    assert [each.onset_step for each in log.incidents] == [300]


def test_a_row_of_several_updates_is_known_as_one_after_the_state_was_stored() -> None:
    rows = Rows.of([0, 10, 20, 30], loss=[2.0] * 4, skipped=[None, None, None, 3.0])
    engine = DetectionEngine()
    engine.feed(rows[:3])
    (scored,) = reloaded(engine).detectors.feed(rows[3:])
    assert not scored.is_withheld(0)
