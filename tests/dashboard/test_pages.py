"""Every page, with an empty store, with a seeded one, and with one that cannot be read."""

import base64
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.figures.component import FIGURES_ROUTE, figure_cache
from db import commands, queries
from db.engine import writing
from lossguard.states import RunState, SegmentReason
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import STEPS, seed
from tests.dashboard.test_report import read
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


def metrics(app: AppTest) -> dict[str, str]:
    assert not app.exception
    return {metric.label: metric.value for metric in app.metric}


def badges(app: AppTest) -> list[str]:
    return [markdown.value for markdown in app.markdown if "-badge[" in markdown.value]


def figure(app: AppTest) -> dict[str, Any]:
    component = app.get("bidi_component")[0]
    url = json.loads(component.proto.json or component.proto.mixed.json)["figure"]
    packed = figure_cache.get(url.removeprefix(FIGURES_ROUTE))
    assert packed is not None
    drawing: dict[str, Any] = json.loads(gzip.decompress(packed.content))
    return drawing


def column(values: dict[str, str]) -> list[float]:
    """As plotly packs it."""
    return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()  # type: ignore[no-any-return]


def names(drawing: dict[str, Any]) -> set[str]:
    return {trace["name"] for trace in drawing["data"]}


def test_the_list_of_an_empty_store_shows_how_to_start_a_run(open_page: OpenPage) -> None:
    app = open_page()
    assert not app.exception
    assert app.subheader[0].value == "No runs yet"
    assert "python -m monitor serve" in app.markdown[0].value


def test_the_run_page_of_an_empty_store_says_so(open_page: OpenPage) -> None:
    app = open_page("run")
    assert not app.exception
    assert app.info[0].value == "No runs yet."


def test_a_card_shows_loss_progress_incidents_and_the_age_of_the_last_report(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time() - 90)
    app = open_page()
    shown = metrics(app)
    assert shown["Steps of 1,200"] == "800"
    assert (shown["Open incidents"], shown["Interventions"]) == ("0", "1")
    assert shown["Last report"].startswith("1 min 3")
    assert float(shown["Loss"]) == pytest.approx(2.1, abs=0.2)


def test_runs_that_need_a_person_come_first(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, run_id="held", state=RunState.INTERRUPTED, now=time.time() - 1000)
    seed(store, run_id="newer", now=time.time())
    with writing(store) as session:
        run = queries.run_named(session, run_id="held")
        assert run is not None
        commands.save_intervention(
            session, run=run, number=2, now=1.0, incident=1, kind="hold", state="proposed", attempt=1,
            rewind_to=None, skip_from=None, skip_to=None, lr_scale=None, details={},
        )  # fmt: skip
    app = open_page()
    assert [caption.value.split(" ")[0] for caption in app.caption] == ["held", "newer"]
    assert [text for text in badges(app) if "needs a person" in text] == badges(app)[1:2]


def test_the_run_page_draws_the_live_line_the_discarded_branch_and_what_happened(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1")
    assert metrics(app)["Steps of 1,200"] == f"{STEPS:,}"
    drawing = figure(app)
    assert {"live line", "discarded branch", "not finite", "incident", "intervention", "declared event"} <= names(
        drawing
    )
    assert app.multiselect[0].value == ["loss", "perplexity", "grad_norm", "log_z", "lr", "throughput"]
    text = " ".join(markdown.value for markdown in app.markdown)
    assert "Onset at step 409, detected at 413, peak at 420 (loss 7.28), over at 427." in text
    assert "Rewind to step 300, skip 200 batches [300, 500)." in text
    assert "31 robust deviations" in text


@pytest.mark.parametrize(
    ("details", "rows"), [("Interventions", 1), ("Skip ledger", 1), ("Events", 3), ("Segments", 2), (None, 1)]
)
def test_only_the_table_of_the_open_tab_is_built(
    open_page: OpenPage, store: sa.Engine, details: str | None, rows: int
) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1", **({} if details is None else {"details": details}))
    assert [len(table.value) for table in app.dataframe] == [rows]


def test_discarded_branches_can_be_hidden(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1")
    assert "discarded branch" not in names(figure(app.toggle[0].set_value(False).run()))


@pytest.mark.parametrize(("x", "title"), [("Tokens", "Tokens"), ("Time", "Time"), ("FLOPs", "Floating-point")])
def test_a_link_selects_the_x_axis(open_page: OpenPage, store: sa.Engine, x: str, title: str) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("run", run="spiky-1", x=x, steps="400-500"))
    axis = drawing["layout"]["xaxis"]
    assert axis["title"]["text"].startswith(title)
    live = next(trace for trace in drawing["data"] if trace["name"] == "live line")
    positions = column(live["x"])
    assert [positions[0], positions[-1]] == pytest.approx(axis["range"], rel=1e-9)
    assert positions == sorted(positions)


def test_a_smoothed_line_is_drawn_over_the_raw_one(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    assert "live line, raw" in names(figure(open_page("run", run="spiky-1", smooth="100 steps")))


def test_a_run_that_was_killed_is_silent_and_has_no_time_left(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time() - 3600)
    for app in (open_page(), open_page("run", run="spiky-1")):
        assert "silent since" in badges(app)[0]
        assert "Time left" not in metrics(app)


def test_the_list_is_filtered_by_its_url(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    seed(store, run_id="done-1", state=RunState.FINISHED, now=time.time() - 86400)
    assert [caption.value.split(" ")[0] for caption in open_page(state="finished").caption] == [r"done\-1"]
    assert open_page(find="nobody").info[0].value == "No run matches these filters."


def test_the_run_page_shows_the_compute_used_and_lost(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    shown = metrics(open_page("run", run="spiky-1"))
    assert (shown["Parameters"], shown["Tokens"], shown["Tokens per parameter"]) == ("826 k", "6.55 M", "7.931")
    assert (shown["Steps discarded"], shown["Time lost"]) == ("128", "51 s")


def test_steps_between_logged_ones_count_as_discarded_and_the_lost_time_is_unknown(
    open_page: OpenPage, store: sa.Engine
) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(0, 430, 10), loss=[2.0] * 43)
        resumed = add_segment(session, run, "b", fork_step=305)
        resumed.reason = SegmentReason.RESUME
        add_steps(session, run, resumed, range(310, 500, 10), loss=[2.0] * 19)
    shown = metrics(open_page("run", run="r1"))
    assert (shown["Steps discarded"], shown["Time lost"]) == ("116", "-")  # 305 .. 420
    assert "116 steps (19.1% of those done) were given up by going back once." in read("r1").text


@pytest.mark.parametrize(("zone", "moment"), [("Etc/Unknown", "22:13:20"), ("Europe/Berlin", "23:13:20")])
@pytest.mark.parametrize("table", ["Segments", "Configuration"])
def test_times_are_in_the_browsers_time_zone_or_in_utc_if_that_is_unknown(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, zone: str, moment: str, table: str
) -> None:
    with writing(store) as session:
        run = add_run(session)
        run.started_at = add_segment(session, run, "a", fork_step=None).opened_at = 1.7e9
    monkeypatch.setattr(type(st.context), "timezone", zone)
    app = open_page("run", run="r1", details=table)
    assert not app.exception
    assert f"2023-11-14 {moment}" in app.dataframe[0].value.to_string()


def test_a_link_with_steps_shows_these_steps(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("run", run="spiky-1", steps="400-500"))
    assert list(drawing["layout"]["xaxis"]["range"]) == [400, 500]
    live = next(trace for trace in drawing["data"] if trace["name"] == "live line")
    x = column(live["x"])
    assert (x[0], x[-1]) == (400, 500)


@pytest.mark.parametrize("steps", ["", "x-y", "9-3", "-5", "400", "\u00b2-\u00b3", "1-9\n", "1-" + "9" * 4000])
def test_invalid_steps_in_the_url_show_the_whole_run(open_page: OpenPage, store: sa.Engine, steps: str) -> None:
    seed(store, now=time.time())
    assert figure(open_page("run", run="spiky-1", steps=steps))["layout"]["xaxis"].get("range") is None


def test_the_run_page_without_a_run_shows_the_first_one_and_names_it_in_the_url(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("run")
    assert app.header[0].value == r"gpt\-small / stdlib bytes"
    assert app.query_params["run"] == "spiky-1"


def test_an_unknown_run_is_named(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="nobody")
    assert not app.exception
    assert app.warning[0].value == "There is no run nobody in this store."


@pytest.mark.parametrize("page", ["run", "lab"])
def test_a_run_id_in_the_url_is_never_rendered_as_markup(open_page: OpenPage, store: sa.Engine, page: str) -> None:
    seed(store, now=time.time())
    app = open_page(page, run="x`\n\n[click](http://evil.example)")
    assert r"There is no run x\` \[click\]\(http\://evil.example\) in this store." in app.warning[0].value


def test_a_run_without_steps_has_a_page(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_segment(session, add_run(session), "a", fork_step=None)
    app = open_page("run", run="r1")
    assert metrics(app)["Loss"] == "-"
    assert app.info[0].value == "No steps reported yet."


def test_a_proposed_intervention_is_shown_as_waiting_for_approval(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        commands.save_intervention(
            session, run=add_run(session), number=1, now=1.0, incident=None, kind="rollback", state="proposed",
            attempt=1, rewind_to=50, skip_from=50, skip_to=250, lr_scale=0.5, details={},
        )  # fmt: skip
    app = open_page("run", run="r1")
    warning = (
        "Intervention 1 is waiting for approval. Rewind to step 50, skip 200 batches [50, 250), learning rate x 0.5."
    )
    assert app.warning[0].value == warning


@pytest.mark.parametrize("page", ["runs", "run"])
def test_a_database_without_tables_is_explained_and_the_page_recovers_when_they_exist(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    full = str(store.url)
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
    app = open_page(page)
    assert not app.exception
    assert "has no tables yet" in app.warning[0].value
    seed(store, now=time.time())
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", full)
    st.cache_resource.clear()
    assert metrics(app.run())["Steps of 1,200"] == "800"


@pytest.mark.parametrize("page", ["runs", "run", "compare"])
def test_an_unreachable_database_is_explained_without_its_password(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "postgresql://lossguard:secret@127.0.0.1:1/lossguard")
    app = open_page(page)
    assert not app.exception
    assert "is away" in app.warning[0].value
    assert "secret" not in app.warning[0].value
