"""What a viewer did to a chart, in the URL, whatever URL the browser's messages have."""

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest


def script() -> None:
    import streamlit as st

    from dashboard import url_state
    from dashboard.views import chart_view

    report = st.session_state.pop("report", None)
    if report is not None:
        st.session_state["chart"] = {"view": report}
        chart_view.save("chart", "steps", url_state.set_steps, last=report.get("last"))
    st.session_state["shown"] = chart_view.shown("chart", "steps")


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


def test_the_newest_steps_take_the_place_of_a_range_until_the_next_zoom(app: AppTest) -> None:
    run(app, {}, turn=1, x=[10, 20])
    run(app, url(app), turn=2, last="10%")
    assert url(app) == {"last": ["10%"]}
    run(app, {"steps": "10-20"})
    assert url(app) == {"last": ["10%"]}, "a message that was on its way does not undo it"
    run(app, url(app), turn=3, x=[10, 20])
    assert url(app) == {"steps": ["10-20"]}


def test_a_url_from_before_the_last_reports_is_replaced_by_the_newest_one(app: AppTest) -> None:
    run(app, {}, turn=1, x=[10, 20])
    run(app, {}, turn=2, x=[12, 18])
    for late in ({}, {"steps": "10-20"}):
        assert run(app, late)["answers"] == 2
        assert url(app) == {"steps": ["12-18"]}
    run(app, {}, turn=3, x=[12, 18], hidden=["live line"])
    assert url(app) == {"steps": ["12-18"], "hidden": ["live line"]}


def test_a_url_that_no_report_made_is_a_link_and_decides(app: AppTest) -> None:
    run(app, {}, turn=1, x=[10, 20])
    shown = run(app, {"steps": "300-400"})
    assert url(app) == {"steps": ["300-400"]}
    assert shown["link"] is not None
    assert run(app, {"steps": "300-400"}, turn=2, collapsed=["lr"])["link"] is None
    assert url(app) == {"steps": ["300-400"], "collapsed": ["lr"]}
