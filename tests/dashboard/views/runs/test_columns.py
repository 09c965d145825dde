"""Columns that a viewer chooses: their labels, their values, and the order of runs by them."""

import math
from typing import Any

from dashboard.views.runs.columns import available, column, groups_of, ordered
from tests.dashboard.views.runs.listed import listed

ROWS = [
    listed("a", config={"model": {"width": 128}, "lr": "auto"}, metrics={"loss": math.nan}, tags=["x", "y"]),
    listed("b", config={"model": {"width": 64}, "lr": 0.1}, metrics={"loss": 2.0}),
    listed("c", config={"lr": 10**400}, metrics={"loss": 3.0}),
    listed("d"),
]


def values(label: str) -> list[Any]:
    return [column(label).of(row) for row in ROWS]


def names(label: str, *, descending: bool) -> str:
    return "".join(row.run.name or "" for row in ordered(ROWS, column(label), descending=descending))


def test_a_column_is_a_setting_by_its_path_or_its_last_part_or_a_value_of_a_metric() -> None:
    assert values("model.width") == values("width") == [128, 64, None, None]
    assert values("max loss") == [None, 2.0, 3.0, None]
    assert values("last loss")[1:] == [2.0, 3.0, None]
    assert column("last").is_metric is False
    assert available(["model.width", "lr"], ["loss"]) == ["last loss", "min loss", "max loss", "lr", "model.width"]


def test_runs_without_a_value_come_last_either_way_and_texts_after_numbers() -> None:
    assert (names("last loss", descending=False), names("last loss", descending=True)) == ("bcad", "cbad")
    assert (names("lr", descending=False), names("lr", descending=True)) == ("bcad", "cbad")


def test_a_run_is_in_the_group_of_each_of_its_tags() -> None:
    assert [groups_of(row, "tag") for row in ROWS] == [["x", "y"], ["-"], ["-"], ["-"]]
    assert [groups_of(row, "width") for row in ROWS] == [["128"], ["64"], ["-"], ["-"]]
    assert (groups_of(ROWS[0], "project"), groups_of(ROWS[0], "host")) == (["gpt"], ["h1"])
