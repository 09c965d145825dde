"""An incident in numbers, where the numbers are extreme."""

import math

import numpy as np

from dashboard.data.before_after import before_and_after
from dashboard.data.incident_window import IncidentWindow
from db.models import Incident
from monitor.detection import Rows
from monitor.detection.expected_bands import Band


def shown(losses: list[float], expected: float) -> dict[str, str]:
    column = np.array(losses)
    same = np.full(len(column), expected)
    rows = Rows(np.arange(len(column)), {"loss": column}, {"loss": np.full(len(column), True)})
    window = IncidentWindow(0, len(column) - 1, True, rows, {"loss": Band(same, same, same, same * 0)}, None)
    table = before_and_after(window, Incident(onset_step=0, end_step=None))
    return {str(name): text for name, text in table.iloc[0].items()}


def test_the_most_extreme_of_huge_values_is_the_farthest_from_the_expected_one() -> None:
    found = shown([1e308, 1.7e308, -1e308], expected=-1e308)
    assert (found["Most extreme value"], found["Now"]) == ("1.700e+308", "1.000e+308")


def test_a_value_that_is_not_finite_is_the_most_extreme_one() -> None:
    assert shown([2.0, math.nan, 1e308], expected=2.0)["Most extreme value"] == "NaN"
