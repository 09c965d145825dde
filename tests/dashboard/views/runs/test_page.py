"""The list of runs: cards, order and filters."""

import math
import time
from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard import formatting
from dashboard.views.runs import filters, selection
from db import commands
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.app_content import card_facts, run_table
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


def cards(app: AppTest) -> list[str]:
    """The ids of the runs, in order."""
    assert not app.exception
    return [caption.value.split(" ")[0].replace("\\", "") for caption in app.caption]


def test_the_list_of_an_empty_store_shows_how_to_start_a_run(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://collector:8123/")
    app = open_page()
    assert not app.exception
    assert app.subheader[0].value == "No runs yet"
    text = app.markdown[0].value
    assert "export LOSSGUARD_URL=http://collector:8123\n" in text
    assert all(each in text for each in ("pip install lossguard", "lossguard launch -- ", "lossguard.Guard(run"))


def test_a_card_shows_loss_progress_incidents_and_the_age_of_the_last_report(
    open_page: OpenPage, store: sa.Engine
) -> None:
    reported_at = time.time() - 90
    seed(store, now=reported_at)
    shown = card_facts(open_page())
    assert shown["Steps of 1,200"] == "800"
    assert (shown["Open incidents"], shown["Interventions"]) == ("0", "1")
    assert shown["Last report"] in map(formatting.ago, range(90, round(time.time() - reported_at) + 1))
    assert float(shown["Last loss"]) == pytest.approx(2.1, abs=0.2)


def test_runs_that_need_a_person_come_first_and_the_url_filters(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "held-1", started_at=1.0)
        run.state = RunState.INTERRUPTED
        commands.save_intervention(
            session, run=run, number=2, now=1.0, incident=1, kind="hold", state="proposed", attempt=1,
            rewind_to=None, skip_from=None, skip_to=None, lr_scale=None, details={},
        )  # fmt: skip
        add_run(session, "newer").last_report_at = time.time()
    app = open_page()
    assert cards(app) == ["held-1", "newer"]
    labels = [link.proto.label for link in app.get("page_link")]
    assert ["needs a person" in label for label in labels] == [False, True, False]
    assert cards(open_page(state="running")) == ["newer"]
    assert open_page(find="nobody").info[0].value == "No run matches these filters."


def add_swept(store: sa.Engine) -> None:
    """Four runs: two learning rates, two seeds; the last loss of one is NaN."""
    with writing(store) as session:
        for at, (lr, seed, last) in enumerate([(0.1, 1, 3.0), (0.1, 2, 1.0), (0.2, 1, 2.0), (0.2, 2, math.nan)]):
            config = {"optimizer": {"lr": lr}, "seed": seed, "odd": {"list": [1, {"a": None}], "empty": {}}}
            run = add_run(session, f"r{at}", config=config, started_at=float(at))
            add_steps(session, run, add_segment(session, run, f"k{at}"), range(40), loss=[9.0] * 39 + [last])


def rows(app: AppTest) -> list[list[Any]]:
    assert not app.exception
    return run_table(app)


def test_the_table_has_the_columns_the_search_the_order_and_the_groups_of_its_url(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add_swept(store)
    app = open_page(layout="Table", find="optimizer.lr<0.15 nobody=1 lr>x", sort="last loss, ascending")
    assert [(row[0], row[4]) for row in rows(app)] == [("gpt / r1", "1"), ("gpt / r0", "3")]
    assert [caption.value.partition("warning: ")[2] for caption in app.caption][:2] == [
        r"lr\>x\: a number must follow \>, not 'x'.]",
        r"nobody\: no run has a setting or a metric of this name.]",
    ]
    found = rows(open_page(layout="Table", columns=["seed", "odd.list", "last loss"]))
    assert [row[0] for row in found] == ["gpt / r3", "gpt / r2", "gpt / r1", "gpt / r0"]
    assert found[0][4:7] == ["2", '[1, {"a": null}]', "NaN"]
    found = rows(open_page(layout="Table", group="lr", columns="last loss"))
    assert found == [["0.2", "2", "2", None, "1"], ["0.1", "2", "2", "1.4", "2"]]


def test_what_a_list_of_many_runs_does_not_show_is_said_and_can_be_had(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_swept(store)
    monkeypatch.setattr(filters, "PAGE_SIZE", {"Cards": 1, "Table": 2})
    monkeypatch.setattr(filters, "MAX_READ", 3)
    app = open_page(layout="Table")
    assert [row[0] for row in rows(app)] == ["gpt / r3", "gpt / r2"]
    more = app.button(key="more-Table")
    assert more.label == "Show more (2 of 4 runs)"
    assert len(rows(more.click().run())) == 4
    assert "more-Table" not in [button.key for button in app.button]
    sorted_page = open_page(layout="Table", sort="last loss, ascending")
    assert [row[0] for row in rows(sorted_page)] == ["gpt / r1", "gpt / r2"]
    assert sorted_page.info[0].value.startswith("Only the 3 newest of the 4 runs found are sorted. Narrow the search")
    longest = open_page(layout="Table", sort="Steps, descending")
    assert longest.selectbox(key="sort").value == "Steps, descending"
    grouped = open_page(layout="Table", group="lr", columns="last loss")
    assert grouped.info[0].value.startswith("Only the 3 newest of the 4 runs found are in groups.")
    assert not open_page(layout="Table", group="lr", find="lr=0.1").info


def test_all_runs_that_match_can_be_selected_and_more_than_a_figure_holds_are_not_compared(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_swept(store)
    monkeypatch.setattr(filters, "PAGE_SIZE", {"Cards": 1, "Table": 2})
    monkeypatch.setattr(selection, "MAX_LINES", 2)
    app = open_page(find="id!=r3")
    app.checkbox[0].check().run()
    assert app.button(key="select-all").label == "Select all 3"
    app.button(key="select-all").click().run()
    assert app.session_state["selected_runs"] == ["r2", "r1", "r0"]
    assert app.caption[0].value == "**3 runs selected** (at most 2 can be compared)"
    assert "select-all" not in [button.key for button in app.button]
    monkeypatch.setattr(selection, "MAX_SELECTED", 2)
    app.button(key="clear-selected").click().run()
    app.checkbox[0].check().run()
    app.button(key="select-all").click().run()
    assert app.session_state["selected_runs"] == ["r2", "r1"]


def test_a_refresh_that_is_on_its_way_when_the_selection_is_cleared_does_not_select_again(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add_swept(store)
    app = open_page()
    app.checkbox[0].check().run()
    app.checkbox[2].check().run()
    assert app.session_state["selected_runs"] == ["r3", "r1"]
    on_its_way = app._tree.get_widget_states()  # as the browser sends them before it hears of the cleared selection
    app.button(key="clear-selected").click().run()
    app._run(on_its_way)
    assert app.session_state["selected_runs"] == []
    assert [each.value for each in app.checkbox] == [False] * 4
