"""The controls of the charts, and what a viewer did to a chart: in the URL and on the page."""

from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.figures.lines import BEYOND_THE_AXIS
from db.store.engine import writing
from tests.dashboard.app_content import figure, metrics, names, panels
from tests.dashboard.conftest import OpenPage
from tests.db.seed import add_run, add_segment, add_steps

PEAK = 7.0
"""The discarded spike of the seed is higher, all of its live line is lower."""


def kinds(drawing: dict[str, Any]) -> list[str]:
    """Of the value axes, from the top down."""
    axes = [name for name in drawing["layout"] if name.startswith("yaxis") and name[5:] in ("", *"23456789")]
    return [drawing["layout"][name]["type"] for name in sorted(axes)]


def highest_loss(drawing: dict[str, Any]) -> float:
    top: float = drawing["layout"]["yaxis"]["range"][1]
    return top


@pytest.mark.usefixtures("spiky")
def test_a_link_without_choices_fits_the_live_line_and_one_with_them_holds_scale_and_range(open_page: OpenPage) -> None:
    drawing = figure(open_page("run", run="spiky-1"))
    assert kinds(drawing) == ["linear", "log", "linear", "linear", "linear"]
    assert highest_loss(drawing) < PEAK
    assert BEYOND_THE_AXIS in {trace["name"] for trace in drawing["data"]}
    choices = {"log": "lr,nothing,,", "linear": "grad_norm", "fit-all": "loss"}
    drawing = figure(open_page("run", run="spiky-1", **choices))
    assert kinds(drawing) == ["linear", "linear", "linear", "log", "linear"]
    assert highest_loss(drawing) > PEAK


def test_the_popover_has_a_row_for_each_panel_and_writes_the_url(open_page: OpenPage, store: sa.Engine) -> None:
    odd = "score, 10%"
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(3), **{"loss": [3.0, 2.0, 1.0], odd: [1.0] * 3})
    app = open_page("run", run="r1", curves=odd, log="loss")
    app.session_state["chart-options"] = True  # as when the popover is open
    app.run()
    app.toggle(key=f"fit-all-{odd}").set_value(True).run()
    assert app.query_params["fit-all"] == "score%2C 10%25"
    app.toggle(key=f"fit-all-{odd}").set_value(False).run()
    assert "fit-all" not in app.query_params
    assert app.query_params["log"] == "loss"  # of a panel that is not shown now
    assert metrics(app)["Last loss"] == "1"


@pytest.mark.parametrize(("smooth", "steps"), [("250", 250), ("1,000 steps", 1000)])
@pytest.mark.usefixtures("spiky")
def test_a_link_smooths_over_any_number_of_steps(open_page: OpenPage, smooth: str, steps: int) -> None:
    app = open_page("run", run="spiky-1", smooth=smooth)
    assert "live line, raw" in names(figure(app))
    app.session_state["chart-options"] = True  # as when the popover is open
    assert app.run().selectbox(key="smooth").value == steps
    assert app.selectbox(key="smooth").set_value(30).run().query_params["smooth"] == "30 steps"
    assert not app.toast


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"smooth": "lots"}, "The link has smooth=lots, which is not valid. Give a number of steps, such as 100."),
        ({"x": "furlongs"}, "The link has x=furlongs, which is not valid. Choose one of: Step, Tokens, Time, FLOPs."),
    ],
)
@pytest.mark.usefixtures("spiky")
def test_a_link_that_asks_for_what_there_is_not_is_answered_by_one_sentence(
    open_page: OpenPage, query: dict[str, str], sentence: str
) -> None:
    app = open_page("run", run="spiky-1", **query)
    assert [toast.value for toast in app.toast] == [sentence]
    assert not app.run().toast


@pytest.mark.usefixtures("spiky")
def test_a_link_names_curves_as_the_loop_does_or_as_the_page_does(open_page: OpenPage) -> None:
    app = open_page("run", run="spiky-1", curves=["loss", "lr", "learning rate", "nothing"])
    assert panels(figure(app)) == ["loss", "lr"]
    assert [each.value for each in app.toast] == [
        "The link has curves=nothing, which is not valid. No run here reports such a metric."
    ]
    app.session_state["chart-options"] = True  # as when the popover is open
    app.run().multiselect(key="curves").set_value(["lr"]).run()
    assert (app.query_params["curves"], panels(figure(app))) == ("learning rate", ["lr"])
    app.multiselect(key="curves").set_value([]).run()
    assert app.query_params["curves"] == ""


def script() -> None:
    import streamlit as st

    from dashboard import url_state
    from dashboard.views import chart

    report = st.session_state.pop("report", None)
    if report is not None:
        st.session_state["chart"] = {"view": report}
        chart.save_view("chart", "steps", url_state.set_steps, last=report.get("last"))
    st.session_state["shown"] = chart.view_in_url("chart", "steps")


def url(app: AppTest) -> dict[str, list[str]]:
    return {name: value if isinstance(value, list) else [value] for name, value in app.query_params.items()}


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_function(script)


def run(app: AppTest, query: dict[str, Any], **report: Any) -> dict[str, Any]:
    """What the chart gets after a message with this URL, and with a report if one is given."""
    app.query_params.clear()
    app.query_params.update(query)
    if report:
        app.session_state["report"] = {"x": None, "y": {}, "hidden": [], "collapsed": [], **report}
    app.run()
    assert not app.exception
    shown: dict[str, Any] = app.session_state["shown"]
    return shown


def test_a_link_tells_a_chart_what_it_hides_and_what_it_zooms_to(app: AppTest) -> None:
    query = {"hidden": ["a, b", "c"], "collapsed": ["lr"], "y": ["loss:1.5..3", "a:b:-2..1e-3", "lr:3..1", "lr:x"]}
    shown = run(app, query)
    assert (shown["hidden"], shown["collapsed"]) == (["a, b", "c"], ["lr"])
    assert shown["y"] == {"loss": (1.5, 3.0), "a:b": (-2.0, 0.001)}
    assert [toast.value.partition(",")[0] for toast in app.toast] == [
        r"The link has y=lr\:3..1",
        r"The link has y=lr\:x",
    ]


def test_a_report_is_written_to_the_url_and_answered_by_its_number(app: AppTest) -> None:
    shown = run(app, {}, turn=3, x=[10.4, 20.9], y={"loss": [2, 2.5]}, hidden=["live line"], collapsed=["lr"])
    assert url(app) == {"steps": ["10-20"], "y": ["loss:2..2.5"], "hidden": ["live line"], "collapsed": ["lr"]}
    assert (shown["answers"], shown["link"]) == (3, None)
    run(app, url(app), turn=4, x=[])
    assert not url(app)


def test_a_zoom_on_the_axis_of_before_is_no_range_of_the_chosen_one(app: AppTest) -> None:
    run(app, {"x": ["Tokens"]}, turn=1, x=[199.75, 599.25], axis="step", hidden=["live line"])
    assert url(app) == {"x": ["Tokens"], "hidden": ["live line"]}
    run(app, url(app), turn=2, x=[4096, 8192], axis="tokens")
    assert url(app) == {"x": ["Tokens"], "steps": ["4096-8192"]}
    run(app, {}, turn=3, x=[10, 20], axis="step")
    assert url(app)["steps"] == ["10-20"]
    run(app, {"x": ["none"]}, turn=4, x=[10, 30], axis="step")  # the page shows steps then
    assert url(app)["steps"] == ["10-30"]


def test_the_newest_steps_take_the_place_of_a_range_until_the_next_zoom(app: AppTest) -> None:
    run(app, {}, turn=1, x=[10, 20])
    run(app, url(app), turn=2, last="10%")
    assert url(app) == {"last": ["10%"]}
    run(app, url(app), turn=3, x=[10, 20])
    assert url(app) == {"steps": ["10-20"]}


def test_a_url_that_no_report_made_is_a_link_and_decides(app: AppTest) -> None:
    run(app, {}, turn=1, x=[10, 20])
    shown = run(app, {"steps": "300-400"})
    assert url(app) == {"steps": ["300-400"]}
    assert shown["link"] is not None
    assert run(app, {"steps": "300-400"}, turn=2, collapsed=["lr"])["link"] is None
    assert url(app) == {"steps": ["300-400"], "collapsed": ["lr"]}
