"""Figures as the browser fetches them."""

import gzip
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
import pytest

from dashboard.figures.component import pack


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
