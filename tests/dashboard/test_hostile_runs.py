"""No page, no report and no frame fails on any run, and all of them say what is true."""

import math
import re
from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.figures.lines import BEYOND_THE_AXIS
from dashboard.figures.panels import NOTHING
from dashboard.figures.value_axis import LARGEST, SMALLEST
from db import frames, queries
from db.store.engine import reading
from monitor.app import create_app
from monitor.settings import Settings
from tests.dashboard.app_content import column as unpacked
from tests.dashboard.app_content import figures
from tests.dashboard.conftest import OpenPage
from tests.dashboard.hostile import HostileRun
from tests.dashboard.hostile_runs import BY_ID, RUNS
from tests.dashboard.report.reader import read
from tests.dashboard.seed import stored
from tests.monitor.client import TestClient

pytestmark = pytest.mark.usefixtures("store")

OF_EACH_KIND = [BY_ID[name] for name in ("no-steps", "first-nan", "huge-and-negative", "late-steps")]
"""Few enough for a fast test."""
FRAMES = (
    frames.steps,
    frames.incidents,
    frames.interventions,
    frames.segments,
    frames.events,
    frames.probes,
    frames.goodput,
)


def by_id(run: HostileRun) -> str:
    return run.id


def finite_values(drawing: dict[str, Any]) -> list[float]:
    """All finite values of a figure; marks are left out, whose axes are y101 and later ones."""
    columns = [trace["y"] for trace in drawing["data"] if len(trace.get("yaxis", "y")) < len("y101")]
    packed = [unpacked(each) if isinstance(each, dict) else each for each in columns]
    return [value for each in packed for value in each if isinstance(value, float) and math.isfinite(value)]


def links(app: AppTest) -> list[str]:
    """Texts that are Markdown, and in which it makes a link of an address in a name."""
    protos = [getattr(each, "proto", None) for each in app]
    texts = [str(getattr(each, name, "")) for each in protos for name in ("body", "label", "help")]
    undone = [re.sub(r"\\(.)", r"\1", re.sub(r"`[^`]*`", "", text)) for text in texts]
    return [text for text in undone if re.search(r"https?://e\.vil|www\.e\.vil|a@e\.vil", text)]


def check(app: AppTest) -> AppTest:
    """No error; and only values that plotly.js can draw."""
    assert not app.exception, [error.message for error in app.exception]
    assert links(app) == []
    for drawing in figures(app):
        sizes = [abs(value) for value in finite_values(drawing) if value != 0]
        assert all(SMALLEST <= size <= LARGEST for size in sizes)
    return app


def open_all(open_page: OpenPage, run: HostileRun, store: sa.Engine) -> None:
    """Every page about a run, with every incident."""
    check(open_page("runs"))
    check(open_page("runs", layout="Table"))
    for x, details in (("Step", "Segments"), ("Time", "Configuration"), ("Tokens", "Events"), ("FLOPs", "Skip ledger")):
        check(open_page("run", run=run.id, x=x, details=details, smooth="100 steps"))
    with reading(store) as session:
        numbers = [each.number for each in queries.incidents(session, run=stored(session, run.id))]
    for number in numbers or [1]:
        check(open_page("incident", run=run.id, incident=str(number)))
    check(open_page("incident", run=run.id, steps=f"0-{2**45}"))
    for x in ("Step", "Tokens", "FLOPs"):
        check(open_page("compare", runs=f"{run.id},{run.id}:0", x=x, smooth="100 steps", only="false"))
    check(open_page("lab", run=run.id))
    for number, temperature in enumerate(("0.1", "1.0", "3.0")):
        check(open_page("next_token", run=run.id, probe=str(number), temperature=temperature))


def make_frames(store: sa.Engine, run_id: str) -> None:
    with reading(store) as session:
        run = stored(session, run_id)
        for make in FRAMES:
            assert make(session, run=run) is not None
        assert run_id in frames.runs(session).index


@pytest.mark.parametrize(
    ("page", "run_id"),
    [
        ("run", "all-sizes"),
        ("run", "gaps"),
        ("run", "names"),
        ("run", "wrong-types"),
        ("incident", "late-steps"),
        ("compare", "huge-and-negative"),
        ("lab", "huge-spike"),
        ("next_token", "probes"),
    ],
)
def test_a_page_about_a_hostile_run_opens(open_page: OpenPage, store: sa.Engine, page: str, run_id: str) -> None:
    BY_ID[run_id].report(store)
    check(open_page(page, **{"runs" if page == "compare" else "run": run_id}))


def test_what_is_not_finite_or_beyond_what_a_browser_can_draw_is_said(open_page: OpenPage, store: sa.Engine) -> None:
    for run_id in ("all-nan", "huge-spike"):
        BY_ID[run_id].report(store)
    layout = figures(open_page("run", run="all-nan"))[0]["layout"]
    assert all(NOTHING in each["text"] for each in layout["annotations"])
    assert layout["yaxis"]["showticklabels"] is False
    report = read("all-nan")
    text = report.text
    assert NOTHING in report.pictures
    assert "The loss was at no time finite in the last " in text
    assert "the loss was not finite at 60 steps" in text
    shown = {metric.label: metric.value for metric in check(open_page("incident", run="all-nan")).metric}
    assert (shown["Expected"], shown["Peak loss"]) == ("-", "NaN"), "it began at the first step"
    drawing = figures(open_page("run", run="huge-spike"))[0]
    (above,) = [trace for trace in drawing["data"] if trace["name"] == BEYOND_THE_AXIS and trace["yaxis"] == "y101"]
    assert any("e+308: above the axis" in text for text in above["customdata"])
    drawing = figures(open_page("incident", run="huge-spike"))[0]
    assert max(finite_values(drawing)) == LARGEST
    assert drawing["layout"]["annotations"][0]["text"].endswith("log scale, larger values are drawn at 1e+300")
    assert "larger values are drawn at 1e+300" in read("huge-spike").pictures


@pytest.mark.slow
def test_reports_frames_and_prometheus_get_hostile_runs(store: sa.Engine) -> None:
    for run in OF_EACH_KIND:
        run.report(store)
        assert "Summary" in read(run.id).headings
        make_frames(store, run.id)
    with TestClient(create_app(Settings(max_runs_in_metrics=100), engine=store)) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200
    shown = [run for run in OF_EACH_KIND if f'run="{run.id}"' in answer.text]
    assert shown == [run for run in OF_EACH_KIND if run.state is None]


@pytest.mark.system
@pytest.mark.parametrize("run", RUNS, ids=by_id)
def test_every_page_and_the_report_of_every_hostile_run_is_made(
    open_page: OpenPage, store: sa.Engine, run: HostileRun
) -> None:
    run.report(store)
    open_all(open_page, run, store)
    assert "Summary" in read(run.id).headings
    make_frames(store, run.id)
