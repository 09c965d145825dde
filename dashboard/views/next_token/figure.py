"""The figures of the next-token page: a distribution as bars, and how the prediction changed over training. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import XAxis
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.lines import non_finite_crosses
from dashboard.figures.panels import Panel, panel_figure, panel_layout, vertical_line
from dashboard.figures.style import BLUE, GREEN, GREY, NUMBER, RUN_COLOURS, base_figure, scatter
from dashboard.views.next_token import distribution
from dashboard.views.next_token.distribution import Distribution
from db.queries import StoredProbe
from lossguard.vocabulary.wire import Probe

TOKEN_COLOURS = (GREEN, *(color for color in RUN_COLOURS if color not in (GREEN, BLUE, GREY)))
"""The first is for the true token. Blue is reserved for the live line, grey for discarded branches."""
MAX_BARS, MAX_LINES = 14, len(TOKEN_COLOURS)
"""Tokens that are drawn individually."""
BAR_HEIGHT_PIXELS = 24
MAX_LETTERS = 32
"""Maximum letters of a token's label in figures (a probe stores up to 1,000)."""
SURPRISAL, ENTROPY = "-log P of the true token (nats)", "Entropy at temperature 1 (nats)"
ENTROPY_BOUND = "Entropy at temperature 1, at most (nats)"
MOST_LIKELY = "Probability of the most likely tokens"


def quoted(text: str) -> str:
    """Quote a token, and escape invisible characters. Backslashes stay: the trainer may have escaped a token itself."""
    return '"' + "".join(each if each.isprintable() else repr(each)[1:-1] for each in text) + '"'


def _short(token: str) -> str:
    return quoted(token if len(token) <= MAX_LETTERS else f"{token[:MAX_LETTERS]}..")


def bars(probe: Probe, now: Distribution, plain: Distribution) -> go.Figure:
    """The most likely tokens at the chosen temperature, with their probability at temperature 1."""
    chosen = _chosen_tokens(probe)
    labels = [_label(probe, index) for index in chosen]
    values, before = list(now.named[chosen]), list(plain.named[chosen])
    num_others = len(probe.tokens) - len(chosen) + probe.rest_count
    if num_others:
        labels.append(f"{num_others:,} others")
        values.append(1.0 - sum(values))
        before.append(1.0 - sum(before))
    colors = [GREEN if probe.tokens[index] == probe.target else BLUE for index in chosen] + [GREY] * bool(num_others)
    y = [*range(len(labels))]
    figure = base_figure(height=BAR_HEIGHT_PIXELS * len(labels) + 86, revision="next-token")
    figure.add_bar(
        orientation="h",
        x=np.array(values),
        y=y,
        name="sampled at this temperature",
        marker={"color": colors},
        customdata=labels,
        hovertemplate="%{customdata} %{x:.3~p} at this temperature<extra></extra>",
    )
    figure.add_scatter(
        mode="markers",
        x=np.array(before),
        y=y,
        name="temperature 1 (as in the loss)",
        marker={"symbol": "line-ns", "size": 14, "line": {"color": GREY, "width": 2.5}},
        customdata=labels,
        hovertemplate="%{customdata} %{x:.3~p} at temperature 1<extra></extra>",
    )
    figure.update_layout(
        margin={"l": 8 + 8 * min(20, max(map(len, labels))), "r": 12, "t": 36, "b": 46},
        bargap=0.25,
        xaxis={"range": [0, min(1.0, 1.08 * max(*values, *before))], "tickformat": "~p", "title": "Probability"},
        yaxis={"range": [len(labels) - 0.5, -0.5], "tickvals": y, "ticktext": labels, "fixedrange": True},
    )
    return figure


def _chosen_tokens(probe: Probe) -> list[int]:
    """Indices of the most likely tokens, and of the true one."""
    first = [*range(min(MAX_BARS, len(probe.tokens)))]
    if probe.target in probe.tokens and (index := probe.tokens.index(str(probe.target))) not in first:
        first[-1] = index
    return first


def _label(probe: Probe, index: int) -> str:
    token = formatting.escape_plotly(_short(probe.tokens[index]))
    return f"<b>{token}</b>" if probe.tokens[index] == probe.target else token


def history(probes: Sequence[StoredProbe], step: int) -> go.Figure:
    """Draw one prompt over training: most likely tokens, true token's surprisal, entropy. `step` is marked."""
    live = [each for each in probes if each.live]
    discarded = [each for each in probes if not each.live]
    has_target = any(each.probe.target is not None for each in probes)
    entropy = ENTROPY if all(distribution.has_exact_entropy(each.probe) for each in probes) else ENTROPY_BOUND
    layout = panel_layout([MOST_LIKELY, *([SURPRISAL] if has_target else []), entropy])
    marker = [vertical_line(step, {"color": GREY, "width": 1.2, "dash": "dot"})]
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        if panel.metric == MOST_LIKELY:
            traces += _tokens(panel, live)
            continue
        values = _surprisal if panel.metric == SURPRISAL else _entropy
        traces.append(
            _line(panel, discarded, [values(each.probe) for each in discarded], "discarded branch", GREY, "markers")
        )
        traces.append(_line(panel, live, [values(each.probe) for each in live], "live line", BLUE))
    # Crosses where the model's output is not a distribution.
    steps = [each.step for each in live if distribution.at_temperature(each.probe, 1.0) is None]
    traces += non_finite_crosses(layout.panels[0], np.array(steps, dtype=np.float64), "not finite")
    traces = without_repeated_legend_entries([trace for trace in traces if len(trace["x"])])
    return panel_figure(layout, traces, XAxis.STEP, None, "next-token-history", shapes=marker)


def _surprisal(probe: Probe) -> float:
    value = probe.target_log_probability
    if value is None or not math.isfinite(value) or not distribution.is_log_probability(value):
        return math.nan
    return -value


def _entropy(probe: Probe) -> float:
    plain = distribution.at_temperature(probe, 1.0)
    return np.nan if plain is None else plain.entropy


def _tokens(panel: Panel, live: Sequence[StoredProbe]) -> list[dict[str, Any]]:
    """The tokens with the largest probability at any step, the true one first."""
    best: dict[str, float] = {}
    for each in live:
        for token, value in zip(each.probe.tokens[:MAX_LINES], each.probe.log_probabilities, strict=False):
            best[token] = max(best.get(token, -np.inf), -np.inf if np.isnan(value) else value)
    target = live[-1].probe.target if live else None
    tokens = sorted(best, key=lambda token: (token != target, -best[token]))[:MAX_LINES]
    colors = TOKEN_COLOURS if target in tokens else TOKEN_COLOURS[1:]
    return [
        _line(panel, live, [_probability(each.probe, token) for each in live], _short(token), color)
        for token, color in zip(tokens, colors, strict=False)
    ]


def _probability(probe: Probe, token: str) -> float:
    """Return the probability; NaN if the probe does not name the token, or the output is not a probability."""
    value = probe.target_log_probability if token == probe.target else None
    if token in probe.tokens:
        value = probe.log_probabilities[probe.tokens.index(token)]
    return math.exp(value) if value is not None and distribution.is_log_probability(value) else math.nan


def _line(
    panel: Panel, probes: Sequence[StoredProbe], values: list[float], name: str, color: str, mode: str = "lines+markers"
) -> dict[str, Any]:
    name = formatting.escape_plotly(name)
    return scatter(
        panel.value_axis,
        np.array([each.step for each in probes], dtype=np.float64),
        np.array(values, dtype=np.float64),
        name,
        mode=mode,
        hover=f"{name} %{{y:{NUMBER}}}",
        line={"color": color, "width": 1.6},
        marker={"color": color, "size": 4 if mode == "lines+markers" else 7},
    )
