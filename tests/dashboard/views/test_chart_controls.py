"""What a link may say about the smoothing and the x axis."""

import time

import pytest
import sqlalchemy as sa

from tests.dashboard.app_content import figure, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed


@pytest.fixture(autouse=True)
def _run(store: sa.Engine) -> None:
    seed(store, now=time.time())


@pytest.mark.parametrize(
    ("smooth", "steps", "written"), [("100", 100, "100 steps"), ("250", 250, "250 steps"), ("1,000 steps", 1000, None)]
)
def test_a_link_smooths_over_any_number_of_steps(
    open_page: OpenPage, smooth: str, steps: int, written: str | None
) -> None:
    app = open_page("run", run="spiky-1", smooth=smooth)
    assert app.selectbox(key="smooth").value == steps
    assert app.query_params["smooth"] == (written or smooth)
    assert "live line, raw" in names(figure(app))
    assert not app.toast


@pytest.mark.parametrize("x", ["time", "Time"])
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
def test_a_link_that_asks_for_what_there_is_not_is_answered_by_one_sentence(
    open_page: OpenPage, query: dict[str, str], sentence: str
) -> None:
    app = open_page("run", run="spiky-1", **query)
    assert [toast.value for toast in app.toast] == [sentence]
    assert not app.run().toast
