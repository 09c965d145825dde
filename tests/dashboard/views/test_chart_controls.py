"""The controls of the charts: in the URL and on the page."""

from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.figures.edges import NAME
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
    assert NAME in {trace["name"] for trace in drawing["data"]}
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
