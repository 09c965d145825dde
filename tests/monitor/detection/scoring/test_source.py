"""Rows of a source as they were before somebody smoothed or filtered them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.source_facts import SourceFacts
from monitor.detection.rows import Floats, Rows
from monitor.detection.scoring.source import SourceCorrection

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


@given(cuts=st.sets(st.integers(1, 49), max_size=5), filtered=st.booleans(), zeros=st.sets(st.integers(0, 49)))
def test_any_split_gives_the_same_rows_also_through_the_stored_state(
    cuts: set[int], filtered: bool, zeros: set[int]
) -> None:
    loss = [0.0 if k in zeros else 3.0 + 0.1 * math.sin(k * k) for k in range(50)]
    rows = Rows.of(np.arange(50), loss=loss, grad_norm=[1.0] * 50)
    facts = SourceFacts(smoothing=0.9, nan_filtered=filtered)
    whole = SourceCorrection(facts).apply(rows)
    correction, parts = SourceCorrection(facts), []
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 50], strict=True):
        parts.append(correction.apply(rows[first:last]).metrics["loss"])
        correction = SourceCorrection.from_dict(json.loads(json.dumps(correction.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(np.concatenate(parts), whole.metrics["loss"])


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
