"""The bars of a distribution, and its history over training."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dashboard.figures.panels import NOTHING
from dashboard.views.next_token.distribution import at_temperature
from dashboard.views.next_token.figure import ENTROPY_BOUND, bars, history, quoted
from db.queries import StoredProbe
from lossguard.vocabulary.wire import Probe
from tests.dashboard.views.next_token.probes import probe


def test_invisible_characters_of_a_token_are_escaped() -> None:
    assert [quoted(token) for token in (" ", "\n", "\\n", "\u00e9")] == ['" "', '"\\n"', '"\\n"', '"\u00e9"']


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


def test_no_token_of_the_history_has_the_colour_of_the_live_line() -> None:
    figure = history([StoredProbe(segment=0, step=0, time=0.0, live=True, probe=probe(0.7, 0.2, 0.1))], 0)
    colors = {trace.name: trace.line.color for trace in figure.data}
    assert len(set(colors.values())) == len(colors) == 4


@pytest.mark.parametrize("log_probability", [5.0, 1e308, math.inf])
def test_a_log_probability_above_zero_is_no_point_of_the_history(log_probability: float) -> None:
    wrong = replace(probe(0.7, 0.3, target=1), target_log_probability=log_probability)
    figure = history([StoredProbe(segment=0, step=0, time=0.0, live=True, probe=wrong)], 0)
    assert all(np.isnan(trace.y).all() for trace in figure.data if trace.name == "live line")
    assert [list(trace.x) for trace in figure.data if trace.name == "not finite"] == [[0]]
    assert NOTHING in figure.layout.annotations[1].text


def test_a_certain_token_is_a_point_of_the_history() -> None:
    figure = history([StoredProbe(segment=0, step=0, time=0.0, live=True, probe=probe(1.0, target=0))], 0)
    assert [list(trace.y) for trace in figure.data if trace.name == '"a"'] == [[1.0]]


def test_the_history_says_where_an_entropy_is_only_a_bound() -> None:
    bound = probe(0.5, 0.2, rest=0.3, rest_count=3)
    titles = {
        name: [each.text for each in history([StoredProbe(0, 0, 0.0, True, one)], 0).layout.annotations]
        for name, one in {"bound": bound, "exact": replace(bound, entropy=1.0)}.items()
    }
    assert any(ENTROPY_BOUND in title for title in titles["bound"])
    assert not any(ENTROPY_BOUND in title for title in titles["exact"])
