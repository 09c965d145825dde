"""The CSV file of what is in view of a chart."""

import csv
import math
import time

import pytest
import sqlalchemy as sa

from dashboard.data import values_file
from dashboard.data.values_file import ValuesFile, ValuesFiles
from db.store.engine import writing
from tests.dashboard.seed import REWIND, SEGMENT_END, STEPS, seed
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


def file(engine: sa.Engine, *metrics: str, **changes: object) -> ValuesFile:
    given = {"run_id": "spiky-1", "window": None, "discarded": True} | changes
    return ValuesFile(str(engine.url), metrics=metrics, **given)  # type: ignore[arg-type]


def rows(of: ValuesFile) -> list[dict[str, str]]:
    return list(csv.DictReader("".join(of.chunks()).splitlines()))


def test_a_short_range_has_a_row_for_each_step_of_each_branch(store: sa.Engine) -> None:
    seed(store, now=time.time())
    found = rows(file(store, "loss", "lr", window=(REWIND - 1, REWIND + 1)))
    where = [(row["metric"], row["branch"], row["segment"], row["first_step"]) for row in found]
    live = [("live", "0", str(REWIND - 1)), ("live", "1", str(REWIND)), ("live", "1", str(REWIND + 1))]
    discarded = [("discarded", "0", str(REWIND)), ("discarded", "0", str(REWIND + 1))]
    assert where == [(metric, *place) for metric in ("loss", "lr") for place in live + discarded]
    assert all(row["first_step"] == row["last_step"] and row["mean"] == row["max"] for row in found)
    assert {row["branch"] for row in rows(file(store, "loss", discarded=False))} == {"live"}


def test_values_that_are_not_finite_are_spelled(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        add_steps(session, run, add_segment(session, run, "a"), range(3), loss=[math.nan, math.inf, -math.inf])
    found = rows(file(store, "loss", run_id="r1"))
    assert [(row["last"], row["non_finite"]) for row in found] == [("nan", "1"), ("inf", "1"), ("-inf", "1")]


def test_a_long_range_has_the_buckets_of_the_chart(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(store, now=time.time())
    monkeypatch.setattr(values_file, "MAX_FULL_STEPS", 100)
    monkeypatch.setattr(values_file, "MAX_POINTS", 8)
    found = rows(file(store, "loss", "throughput"))
    losses = [row for row in found if row["metric"] == "loss"]
    live = [row for row in losses if row["branch"] == "live"]
    assert len(live) <= 8
    counts = [sum(int(row[column]) for row in live) for column in ("count", "non_finite")]
    assert counts == [STEPS - 1, 1]
    assert all(float(row["min"]) <= float(row["mean"]) <= float(row["max"]) for row in live)
    assert {row["segment"] for row in live if int(row["first_step"]) >= REWIND} == {"1"}
    discarded = [row for row in losses if row["branch"] == "discarded"]
    assert sum(int(row["count"]) for row in discarded) == SEGMENT_END - REWIND
    assert any(row["metric"] == "throughput" for row in found)


def test_a_metric_whose_name_is_a_formula_has_an_apostrophe(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        add_steps(session, run, add_segment(session, run, "a"), range(2), **{"=1+1": [1.0, 2.0]})
    assert {row["metric"] for row in rows(file(store, "=1+1", run_id="r1"))} == {"'=1+1"}


def test_a_file_has_one_name_until_others_are_shown(store: sa.Engine) -> None:
    files = ValuesFiles(max_files=2)
    first, second, third = (file(store, name) for name in ("a", "b", "c"))
    name = files.name(first)
    assert files.name(first) == name != files.name(second)
    assert files.get(name) == first
    assert files.get("guessed") is files.get("na\u00efve") is None
    files.name(third)
    assert files.get(name) is None
