"""The bars of a distribution, and its history over training."""

import math

import numpy as np
import pytest

from dashboard.views.next_token.distribution import at_temperature
from dashboard.views.next_token.figure import bars, history
from db.queries import StoredProbe
from lossguard.vocabulary.wire import Probe
from tests.dashboard.views.next_token.probes import probe


def test_the_true_token_always_has_a_bar_and_the_rest_shares_one() -> None:
    tokens = tuple(f"t{number}" for number in range(40))
    logs = tuple(math.log((40 - number) / 820) for number in range(40))
    probed = Probe(prompt="p", tokens=tokens, log_probabilities=logs, target="t39", target_log_probability=logs[39])
    now = at_temperature(probed, 1.0)
    assert now is not None
    figure = bars(probed, now, now)
    assert figure.layout.yaxis.ticktext[-2:] == ('<b>"t39"</b>', "26 others")
    assert sum(figure.data[0].x) == pytest.approx(1.0)


def test_the_history_draws_discarded_probes_as_points_and_invalid_ones_as_crosses() -> None:
    stored = [
        StoredProbe(segment=0, step=step, time=0.0, live=step != 20, probe=probe(0.7, share, target=1))
        for step, share in ((0, 0.3), (10, -1.0), (20, 0.2), (30, 0.3))
    ]
    figure = history(stored, 30)
    live = [trace for trace in figure.data if trace.name == "live line"]
    assert [list(trace.x) for trace in live] == [[0, 10, 30]] * 2
    assert np.isnan(live[0].y[1])
    assert [list(trace.x) for trace in figure.data if trace.name == "not finite"] == [[10]]
    assert [list(trace.x) for trace in figure.data if trace.name == "discarded branch"] == [[20]] * 2
