"""The controls of the charts: in the URL, on the page, and in a browser."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.figures.edges import NAME
from db import migrate
from db.store.engine import create_engine, writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.app_content import figure, metrics, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed
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


def test_a_link_without_choices_fits_the_live_line(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("run", run="spiky-1"))
    assert kinds(drawing) == ["linear", "log", "linear", "linear", "linear"]
    assert highest_loss(drawing) < PEAK
    assert NAME in {trace["name"] for trace in drawing["data"]}


def test_a_link_holds_scale_and_range_and_what_it_names_in_vain_is_ignored(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
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
    app.session_state["axes"] = True  # as when the popover is open
    app.run()
    app.toggle(key=f"fit-all-{odd}").set_value(True).run()
    assert app.query_params["fit-all"] == "score%2C 10%25"
    app.toggle(key=f"fit-all-{odd}").set_value(False).run()
    assert "fit-all" not in app.query_params
    assert app.query_params["log"] == "loss"  # of a panel that is not shown now
    assert metrics(app)["Loss"] == "1"


def test_runs_are_compared_on_the_axes_that_the_link_names(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        for name in ("one", "two"):
            run = add_run(session, name)
            losses = [2.0 + math.exp(-step / 9) for step in range(50)]
            losses[30] = PEAK if name == "two" else losses[30]
            add_steps(session, run, add_segment(session, run, name), range(50), loss=losses)
    compared = {"runs": "one,two", "curves": "loss"}
    fitted = figure(open_page("compare", **compared))
    whole = figure(open_page("compare", **compared, **{"fit-all": "loss", "log": "loss"}))
    assert highest_loss(fitted) < PEAK < 10 ** highest_loss(whole)
    assert (kinds(fitted), kinds(whole)) == (["linear"], ["log"])


LOSS_AXIS = """() => {
    const axis = document.querySelector('.lossguard-figure')._fullLayout.yaxis;
    return [axis.type, ...axis.range];
}"""


@pytest.mark.slow(8)
@pytest.mark.needs("chromium")
def test_in_a_browser_an_axis_follows_the_view_and_the_popover_and_a_reload_keeps_it(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    from tests.dashboard.browser import FIGURE, box_of, chromium, dashboard, drawn

    engine = create_engine(f"sqlite:///{tmp_path}/lossguard.db")
    migrate.upgrade(engine)
    seed(engine, state=RunState.FINISHED, now=time.time())
    engine.dispose()
    with dashboard(str(engine.url)) as served, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(f"{served.url}/run?run=spiky-1")
        whole = drawn(page)
        kind, low, high = page.evaluate(LOSS_AXIS)
        assert kind == "linear"
        assert 1 < low < high < PEAK
        box = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
        page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(600)  # a double click makes no room for the discarded spike
        assert page.evaluate(LOSS_AXIS) == [kind, low, high]
        page.locator(FIGURE).first.focus()
        page.keyboard.press("+")
        page.wait_for_url("**steps=*")
        zoomed = drawn(page, other_than=whole)
        assert page.evaluate(LOSS_AXIS)[2] < high - 1  # the first steps, with their high losses, are out of view
        page.get_by_role("button", name="Axes").click()
        page.locator(".st-key-scale-loss").get_by_text("Log").click()
        page.wait_for_url("**log=loss*")
        logarithmic = drawn(page, other_than=zoomed)
        page.locator(".st-key-fit-all-loss label").click()
        page.wait_for_url("**fit-all=loss*")
        drawn(page, other_than=logarithmic)
        kind, _, top = page.evaluate(LOSS_AXIS)
        assert kind == "log"
        assert 10**top > PEAK
        page.reload()
        drawn(page)
        assert page.evaluate(LOSS_AXIS)[2] == pytest.approx(top)


@pytest.fixture
def seeded(store: sa.Engine) -> None:
    seed(store, now=time.time())


@pytest.mark.parametrize(
    ("smooth", "steps", "written"), [("100", 100, "100 steps"), ("250", 250, "250 steps"), ("1,000 steps", 1000, None)]
)
@pytest.mark.usefixtures("seeded")
def test_a_link_smooths_over_any_number_of_steps(
    open_page: OpenPage, smooth: str, steps: int, written: str | None
) -> None:
    app = open_page("run", run="spiky-1", smooth=smooth)
    assert app.selectbox(key="smooth").value == steps
    assert app.query_params["smooth"] == (written or smooth)
    assert "live line, raw" in names(figure(app))
    assert not app.toast


@pytest.mark.parametrize("x", ["time", "Time"])
@pytest.mark.usefixtures("seeded")
def test_a_link_names_the_x_axis_in_small_letters_too(open_page: OpenPage, x: str) -> None:
    app = open_page("run", run="spiky-1", x=x)
    assert figure(app)["layout"]["xaxis"]["title"]["text"] == "Time"
    assert app.query_params["x"] == "Time"
    assert not app.toast


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"smooth": "lots"}, "The link has smooth=lots, which is not valid. Give a number of steps, such as 100."),
        ({"x": "furlongs"}, "The link has x=furlongs, which is not valid. Choose one of: Step, Tokens, Time, FLOPs."),
    ],
)
@pytest.mark.usefixtures("seeded")
def test_a_link_that_asks_for_what_there_is_not_is_answered_by_one_sentence(
    open_page: OpenPage, query: dict[str, str], sentence: str
) -> None:
    app = open_page("run", run="spiky-1", **query)
    assert [toast.value for toast in app.toast] == [sentence]
    assert not app.run().toast


def test_a_link_names_curves_as_the_loop_does_or_as_the_page_does(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1", curves=["loss", "lr", "learning rate", "nothing"])
    assert app.multiselect(key="curves").value == ["loss", "lr"]
    assert [each.value for each in app.toast] == [
        "The link has curves=nothing, which is not valid. No run here reports such a metric."
    ]
    assert app.query_params["curves"][:2] == ["loss", "learning rate"]
