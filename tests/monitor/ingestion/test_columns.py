"""Steps as columns: decoded, cut, without those that are known, and as the input of the detection."""

import math

import numpy as np
import pytest

from monitor.detection import Row
from monitor.ingestion.columns import decode, detector_row, detector_rows
from monitor.problems import Problem
from monitor.schemas import ReportIn

REPORT = ReportIn(
    segment=0,
    steps=[3, 4, 6],
    times=[1.0, 2.0, 3.0],
    metrics={"loss": [2.5, "NaN", None], "tokens": [10, 20, 30], "eval/acc": [0.5, None, 0.25]},
)


def test_numbers_nan_and_missing_values_are_decoded() -> None:
    columns = decode(REPORT)
    assert np.array_equal(columns.metrics["loss"].values, [2.5, math.nan, math.nan], equal_nan=True)
    assert columns.metrics["loss"].reported.tolist() == [True, True, False]
    assert columns.metrics["tokens"].values.tolist() == [10.0, 20.0, 30.0]


def test_a_part_of_the_steps_has_all_metrics() -> None:
    part = decode(REPORT).between(1, 3)
    assert (part.steps, part.times) == ([4, 6], [2.0, 3.0])
    assert part.metrics["tokens"].values.tolist() == [20.0, 30.0]


def test_known_steps_are_dropped_from_every_column() -> None:
    columns = decode(REPORT)
    assert columns.without(set()) is columns
    new = columns.without({4, 5})
    assert (new.steps, new.times) == ([3, 6], [1.0, 3.0])
    assert new.metrics["tokens"].values.tolist() == [10.0, 30.0]


def test_the_detection_gets_its_inputs_only() -> None:
    columns = decode(REPORT)
    rows = detector_rows(columns.steps, columns.times, columns.metrics)
    assert set(rows.metrics) == {"loss", "tokens"}
    assert rows.present["loss"].tolist() == [True, True, False]


def test_a_single_step_is_a_row_of_the_same_inputs_unless_one_of_them_was_not_reported() -> None:
    first, last = decode(REPORT).between(0, 1), decode(REPORT).between(2, 3)
    row = detector_row(first.steps[0], first.times[0], first.metrics)
    assert row == Row.of(detector_rows(first.steps, first.times, first.metrics))
    assert row == Row(3, {"loss": 2.5, "tokens": 10.0}, 1.0)
    assert detector_row(last.steps[0], last.times[0], last.metrics) is None


def test_a_count_beyond_64_bits_is_refused_with_its_index() -> None:
    with pytest.raises(Problem, match="too large") as raised:
        decode(REPORT.model_copy(update={"metrics": {"tokens": [1, 2**63, 3]}}))
    assert raised.value.where == ["metrics", "tokens", 1]
