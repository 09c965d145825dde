"""No page, no report and no frame fails on any run, and all of them say what is true."""

import math
import re
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard.figures.edges import NAME
from dashboard.figures.float32 import LARGEST, SMALLEST
from dashboard.figures.panels import NOTHING
from db import frames, queries
from db.models import Base
from db.store.engine import reading, writing
from monitor.app import create_app
from monitor.settings import Settings
from tests.dashboard.app_content import column as unpacked
from tests.dashboard.app_content import figures
from tests.dashboard.conftest import OpenPage
from tests.dashboard.hostile import MAX_STEP, HostileRun, Part
from tests.dashboard.hostile_runs import BY_ID, EMOJI, MARKUP, RUNS
from tests.dashboard.report.reader import read
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
        stored = queries.run_named(session, run_id=run.id)
        assert stored is not None
        numbers = [each.number for each in queries.incidents(session, run=stored)]
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
        run = queries.run_named(session, run_id=run_id)
        assert run is not None
        for make in FRAMES:
            assert make(session, run=run) is not None
        assert list(frames.runs(session).index) == [run_id]


@pytest.mark.parametrize("run", OF_EACH_KIND, ids=by_id)
def test_the_report_and_the_frames_of_a_hostile_run_are_made(store: sa.Engine, run: HostileRun) -> None:
    run.report(store)
    assert "Summary" in read(run.id).headings
    make_frames(store, run.id)


@pytest.mark.parametrize(
    ("page", "run_id"),
    [
        ("run", "first-nan"),
        ("run", "all-sizes"),
        ("run", "gaps"),
        ("incident", "one-nan"),
        ("incident", "late-steps"),
        ("compare", "huge-and-negative"),
        ("lab", "huge-spike"),
        ("next_token", "probes"),
    ],
)
def test_a_page_about_a_hostile_run_opens(open_page: OpenPage, store: sa.Engine, page: str, run_id: str) -> None:
    BY_ID[run_id].report(store)
    check(open_page(page, **{"runs" if page == "compare" else "run": run_id}))


def test_a_panel_without_a_finite_value_says_so_and_has_no_ticks(open_page: OpenPage, store: sa.Engine) -> None:
    BY_ID["all-nan"].report(store)
    layout = figures(open_page("run", run="all-nan"))[0]["layout"]
    assert all(NOTHING in each["text"] for each in layout["annotations"])
    assert layout["yaxis"]["showticklabels"] is False


def test_the_report_of_a_run_without_a_finite_loss_says_so(store: sa.Engine) -> None:
    BY_ID["one-nan"].report(store)
    text = read("one-nan").text
    assert f"Loss (nats per token) - {NOTHING}" in text
    assert "The loss was at no time finite in the last 1 step; the loss was not finite at 1 step" in text


def test_values_beyond_what_a_browser_can_draw_are_marked_on_the_edge_or_drawn_at_the_end_of_an_axis_which_says_so(
    open_page: OpenPage, store: sa.Engine
) -> None:
    BY_ID["huge-spike"].report(store)
    drawing = figures(open_page("run", run="huge-spike"))[0]
    (above,) = [trace for trace in drawing["data"] if trace["name"] == NAME and trace["yaxis"] == "y101"]
    assert any("e+308: above the axis" in text for text in above["customdata"])
    drawing = figures(open_page("incident", run="huge-spike"))[0]
    assert max(finite_values(drawing)) == LARGEST
    assert drawing["layout"]["annotations"][0]["text"].endswith("log scale, larger values are drawn at 1e+300")
    assert "larger values are drawn at 1e+300" in read("huge-spike").text


def test_an_incident_at_the_first_step_has_no_expected_value(open_page: OpenPage, store: sa.Engine) -> None:
    BY_ID["all-nan"].report(store)
    shown = {metric.label: metric.value for metric in check(open_page("incident", run="all-nan")).metric}
    assert (shown["Expected"], shown["Peak loss"]) == ("-", "NaN")


def test_prometheus_gets_all_hostile_runs(store: sa.Engine) -> None:
    for run in OF_EACH_KIND:
        run.report(store)
    with TestClient(create_app(Settings(max_runs_in_metrics=100), engine=store)) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200
    shown = [run for run in OF_EACH_KIND if f'run="{run.id}"' in answer.text]
    assert shown == [run for run in OF_EACH_KIND if run.state is None]


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=by_id)
def test_every_page_and_the_report_of_every_hostile_run_is_made(
    open_page: OpenPage, store: sa.Engine, run: HostileRun
) -> None:
    run.report(store)
    open_all(open_page, run, store)
    assert "Summary" in read(run.id).headings
    make_frames(store, run.id)


numbers = st.one_of(
    st.none(),
    st.floats(),
    st.floats(1.5, 12.0),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, sys.float_info.max, 5e-324, 0.0, -0.0]),
)
counts = st.one_of(st.none(), st.just(0.0), st.integers(0, 2**62).map(float))
step_numbers = st.one_of(st.integers(0, 200), st.integers(0, MAX_STEP), st.integers(2**31 - 50, 2**31 + 50))
seconds = st.one_of(st.floats(0, 1e11, exclude_max=True), st.sampled_from([0.0, 1.7e9, 1e11 - 1]))
texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60), st.sampled_from([MARKUP, EMOJI])
)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    steps = sorted(draw(st.sets(step_numbers, max_size=30)))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=len(steps), max_size=len(steps)))

    names = draw(st.sets(st.sampled_from(["loss", "grad_norm", "log_z", "lr", "held_out_loss", "mfu", "own"])))
    columns = {name: column(numbers) for name in sorted(names)}
    columns |= {name: column(counts) for name in sorted(draw(st.sets(st.sampled_from(["tokens", "batch_index"]))))}
    reason = draw(st.sampled_from(["start", "rollback", "resume", "rewind"]))
    fork = draw(st.integers(0, steps[0]) if steps else step_numbers)
    return Part(steps=steps, metrics=columns, times=column(seconds), fork_step=fork, reason=reason)


incidents = st.fixed_dictionaries(
    {"segment": st.integers(0, 3), "onset_step": step_numbers, "detected_step": step_numbers},
    optional={
        "peak_step": st.none() | step_numbers,
        "end_step": st.none() | step_numbers,
        "score": st.none() | st.floats(),
        "state": st.sampled_from(["warning", "open", "treated", "closed"]),
        "details": st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("peak_value", "expected", "scale"), st.floats(allow_nan=False, allow_infinity=False)
            ),
        ),
    },
)
interventions = st.fixed_dictionaries(
    {"rewind_to": st.none() | step_numbers, "skip_from": step_numbers, "skip_to": step_numbers},
    optional={"details": st.fixed_dictionaries({"decided_step": step_numbers, "verify_at": step_numbers})},
)
hostile_runs = st.builds(
    HostileRun,
    id=st.just("r"),
    parts=st.lists(parts(), max_size=3),
    registration=st.fixed_dictionaries(
        {"name": texts, "config": st.dictionaries(texts, texts | st.floats(allow_nan=False, allow_infinity=False))}
    ),
    incidents=st.lists(incidents, max_size=3),
    interventions=st.lists(interventions, max_size=2),
    state=st.sampled_from([None, "finished", "interrupted", "failed"]),
)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(run=hostile_runs)
def test_no_page_and_no_report_of_any_run_fails(open_page: OpenPage, store: sa.Engine, run: HostileRun) -> None:
    with writing(store) as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(sa.delete(table))
    run.report(store)
    assert "Summary" in read(run.id).headings
    make_frames(store, run.id)
    for page in ("run", "incident", "lab"):
        check(open_page(page, run=run.id))
    check(open_page("run", run=run.id, x="Time"))
    check(open_page("compare", runs=f"{run.id},{run.id}:0"))
