"""The content of a page in an AppTest."""

import base64
import gzip
import html
import json
import re
from typing import Any

import numpy as np
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.figures.component import FIGURES_ROUTE, figure_cache


def forget() -> None:
    """Forget what the pages have read; else they show a change of the store seconds later."""
    st.cache_data.clear()
    st.cache_resource.clear()


def metrics(app: AppTest) -> dict[str, str]:
    assert not app.exception
    return {metric.label: metric.value for metric in app.metric}


def card_facts(app: AppTest) -> dict[str, str]:
    """The numbers of the last card in the list of runs, by name."""
    assert not app.exception
    found = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", " ".join(each.proto.body for each in app.get("html")))
    return {html.unescape(name): html.unescape(value) for name, value in found}


def badges(app: AppTest) -> list[str]:
    return [markdown.value for markdown in app.markdown if "-badge[" in markdown.value]


def verdict(app: AppTest) -> str:
    """The sentence of the first verdict on the page."""
    found = (re.match(r":\w+\[:material/\w+: (\*\*.*?)\](?: |$)", each.value) for each in app.markdown)
    return next(re.sub(r"[*\\]", "", each[1]) for each in found if each is not None)


def figure(app: AppTest) -> dict[str, Any]:
    return figures(app)[0]


def figures(app: AppTest) -> list[dict[str, Any]]:
    return [_figure(data["figure"]) for data in _data(app) if "figure" in data]


def panels(drawing: dict[str, Any]) -> list[str]:
    """The metrics of a run's figure, from the top down."""
    return [metric for metric, _ in drawing["layout"]["meta"]["panels"]]


def incident_rows(app: AppTest) -> list[dict[str, Any]]:
    """Of the table of incidents."""
    return next((data["rows"] for data in _data(app) if "rows" in data), [])


def run_table(app: AppTest) -> list[list[Any]]:
    """The rows of the table of runs, or of groups, each cell as it is shown; of a line its corners."""
    (columns,) = [data["columns"] for data in _data(app) if "columns" in data]
    return [list(row) for row in zip(*(column["cells"] for column in columns), strict=True)]


def _data(app: AppTest) -> list[dict[str, Any]]:
    """What the page sends to each of its components."""
    found = [each.proto for each in app.get("bidi_component")]
    return [json.loads(proto.json or proto.mixed.json) for proto in found]


def _figure(url: str) -> dict[str, Any]:
    packed = figure_cache.get(url.removeprefix(FIGURES_ROUTE))
    assert packed is not None
    drawing: dict[str, Any] = json.loads(gzip.decompress(packed.content))
    return drawing


def column(values: dict[str, str]) -> list[float]:
    """As plotly packs it."""
    return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()  # type: ignore[no-any-return]


def names(drawing: dict[str, Any]) -> set[str]:
    return {trace["name"] for trace in drawing["data"]}
