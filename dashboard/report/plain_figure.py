"""The values of a plotly figure, as they were given: plotly looks up, checks and copies each one that is asked for."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

GROUPS = frozenset(("line", "margin", "marker", "title"))
"""Attributes that have attributes themselves; one that was not given has none, and is not None."""
LISTS = frozenset(("annotations", "shapes"))


class Plain:
    """Attributes as those of a plotly object: None where nothing was given."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        value = self._values.get(name)
        if name in LISTS:
            return [Plain(each) for each in value or ()]
        return Plain(value or {}) if name in GROUPS or isinstance(value, dict) else value

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class PlainFigure:
    """Its traces and its layout."""

    def __init__(self, figure: go.Figure) -> None:
        self.data = [Plain(trace.to_plotly_json()) for trace in figure.data]
        self.layout = Plain({"xaxis": {}, "yaxis": {}} | figure.layout.to_plotly_json())
