"""The figure of an incident, and the picture of a decision."""

import math

import numpy as np

from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.incident import Futures, decision_figure, incident_figure
from db.models import Incident
from monitor.detection import Rows

FUTURES = Futures(20, (30, 50), "roll back: costs 20 steps", "wait: costs 90 steps")


def shown(loss: list[float]) -> IncidentWindow:
    steps, values = np.arange(len(loss)), np.array(loss)
    rows = Rows(steps=steps, metrics={"loss": values}, present={"loss": np.ones(len(loss), dtype=np.bool_)})
    return IncidentWindow(0, len(loss) - 1, True, rows, {}, None)


def test_one_future_starts_at_the_checkpoint_with_its_loss_and_the_other_at_the_newest_step() -> None:
    figure = decision_figure(shown([3.0] * 40 + [7.0] * 20), FUTURES)
    lines = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert lines[FUTURES.roll_back] == ([20, 79], [3.0, 3.0])
    assert lines[FUTURES.wait] == ([59, 79], [7.0, 7.0])
    assert lines["checkpoint of step 20"][0] == [20, 20]
    assert lines["batches skipped by a rollback"][0] == [30, 30, 50, 50]


def test_a_loss_that_is_not_finite_any_more_has_one_future_from_its_last_finite_value() -> None:
    figure = decision_figure(shown([3.0] * 40 + [math.nan] * 20), FUTURES)
    assert [trace.y[0] for trace in figure.data if trace.name == FUTURES.wait] == [3.0]
    names = {trace.name for trace in decision_figure(shown([math.nan] * 60), FUTURES).data}
    assert names.isdisjoint({FUTURES.wait, FUTURES.roll_back})


def test_of_several_rewinds_the_last_one_is_marked() -> None:
    incident = Incident(number=1, kind="loss_spike", signal="loss", onset_step=40, detected_step=42)
    figure = incident_figure(shown([3.0] * 60), incident, [], [20, 10], None)
    assert [shape.x0 for shape in figure.layout.shapes if shape.type == "line"] == [10]
