"""Figures as the browser fetches them."""

import gzip
import hashlib
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
import pytest

from dashboard.figures.component import CHART_JS, CHART_URL, LOADER, pack


@pytest.mark.parametrize(
    ("x", "packed"),
    [
        (np.empty((0, 2)), []),
        (np.array([2**40]), [2**40]),
        (np.array([], dtype=np.int64), []),
        (np.array(["a"]), ["a"]),
    ],
)
def test_arrays_that_plotly_does_not_encode_are_lists(x: Any, packed: list[object]) -> None:
    figure = go.Figure(go.Scatter(x=x), layout={"height": 100})
    assert json.loads(gzip.decompress(pack(figure).content))["data"][0]["x"] == packed


def test_the_script_in_every_message_is_small_and_loads_the_one_that_the_browser_keeps() -> None:
    assert len(LOADER) < 300
    assert CHART_URL in LOADER
    assert hashlib.sha256(CHART_JS).hexdigest().startswith(CHART_URL.rpartition("=")[2])
    assert CHART_JS.count(b"export default") == 1
