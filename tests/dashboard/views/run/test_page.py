"""The Run page: curves, incidents, compute and tables of one run."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st

from db import commands
from db.records import hardware
from db.steps.archived import reading
from db.steps.archived.places import Place
from db.store.engine import writing
from lossguard.vocabulary.protocol import IMPORTED
from lossguard.vocabulary.source_facts import SOURCE, SourceFacts
from lossguard.vocabulary.states import RunState, SegmentReason
from tests.dashboard.app_content import column, figure, incident_rows, metrics, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.report.reader import read
from tests.dashboard.seed import STEPS, seed
from tests.db.archive.stored import archive
from tests.db.seed import NOW, add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


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
    assert app.multiselect[0].value == ["loss", "grad_norm", "log_z", "lr", "throughput"]
    (row,) = incident_rows(app)
    assert (row["kind"], row["onset"], row["cost"], row["outcome"]) == (
        "loss spike",
        "409",
        "128 steps, 51 s",
        "recovered",
    )
    text = " ".join(markdown.value for markdown in app.markdown)
    assert "1 rewind cost 128 steps" in text
    assert "Onset at step 409" not in text
    text = " ".join(markdown.value for markdown in open_page("run", run="spiky-1", incident="1").markdown)
    assert "Onset at step 409, detected at 413, peak at 420 (loss 7.28), ended at 427." in text
    assert "Rewind to step 300, skip 200 batches [300, 500)." in text
    assert "31 robust deviations" in text


def test_archived_steps_are_drawn_like_stored_ones_and_named_where_their_place_is_away(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path
) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    before = figure(open_page("run", run="spiky-1"))
    archive(store, Place(str(tmp_path / "place")), "spiky-1")
    st.cache_data.clear()
    st.cache_resource.clear()
    app = open_page("run", run="spiky-1")
    assert [trace.get("y") for trace in figure(app)["data"]] == [trace.get("y") for trace in before["data"]]
    shutil.rmtree(tmp_path / "place")
    reading.forget_contents()
    st.cache_data.clear()
    st.cache_resource.clear()
    (warning,) = open_page("run", run="spiky-1").warning
    assert warning.value.startswith("The archived steps 0 to 255 of the run 'spiky-1' cannot be read: ")
    assert ": is it mounted? The folder has no file lossguard-archive.txt. " in warning.value
    runs = open_page("runs")
    assert (list(runs.warning), list(runs.exception)) == ([], []), "a list needs no file"


def test_a_run_that_lost_its_guard_says_why(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session, capabilities=["no-rollback:the guard has failed (KeyError: 'x')"])
    (warning,) = open_page("run", run="r1").warning
    assert warning.value == (
        "Nothing is rolled back any more: the guard has failed \\(KeyError\\: 'x'\\). "
        "Start the training again to guard it."
    )


def test_a_state_that_is_never_restored_is_named_with_the_reason(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        run.restorable_steps = [0, 10]
        segment = add_segment(session, run, "a")
        details = {"step": 20, "reason": "model.weight holds NaN"}
        values: dict[str, Any] = {"step": 20, "time": NOW, "kind": "checkpoint_uncertified", "details": details}
        commands.add_event(session, run=run, key="e", segment=segment.number, **values)
    (warning,) = open_page("run", run="r1").warning
    assert warning.value == (
        "A checkpoint without a certificate\\: the state at step 20 is never restored\\: model.weight holds NaN; "
        "the newest good one is step 10."
    )


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


def test_the_run_page_shows_the_goodput_and_what_the_rest_was_lost_to(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    shown = metrics(open_page("run", run="spiky-1"))
    assert (shown["Goodput"], shown["Not training"], shown["Largest loss"]) == ("86.1%", "52 s", "Spikes")


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
    assert "1 rewind cost 116 steps (19.1% of all steps)." in read("r1").text


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


def test_the_page_says_that_a_run_was_imported(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session, capabilities=[IMPORTED])
        add_run(session, "r2")
    assert open_page("run", run="r1").caption[0].value == "run r1 / imported / h / cpu"
    assert open_page("run", run="r2").caption[0].value == "run r2 / h / cpu"


def test_the_page_says_how_the_rows_of_the_source_are_made(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        details = SourceFacts(smoothing=0.9).to_details()
        commands.add_event(session, run=run, key="s", segment=0, step=0, time=1.0, kind=SOURCE, details=details)
    captions = " ".join(caption.value for caption in open_page("run", run="r1").caption)
    assert "The loss is smoothed" in captions


def test_what_people_wrote_of_a_run_is_shown(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, config={"tags": ["trial"]})
        run.note = "the baseline, *not* the sweep"
    app = open_page("run", run="r1")
    text = " ".join(markdown.value for markdown in app.markdown)
    assert r"the baseline, \*not\* the sweep" in text
    assert "trial" in text
    assert not app.button(key="edit-run").disabled


def test_hardware_and_series_of_a_family_have_panels_of_their_own(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_steps(
            session, run, add_segment(session, run, "a"), [0, 1], loss=[2.0, 1.0], **{"source_loss/web": [3.0, 2.0]}
        )
        sample = {
            "time": 5.0,
            "step": 1,
            "host": "node-1",
            "device": "gpu0",
            "values": {"power": 9.0, "ecc_errors": 1.0},
        }
        hardware.add_samples(session, run=run, samples=[sample])
    app = open_page("run", run="r1")
    assert {"Sources and layers", "Hardware"} <= {each.value for each in app.subheader}
    assert any("ECC error of gpu0" in each.value and "by step 1" in each.value for each in app.markdown)


def test_a_run_without_them_has_no_such_panels(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1")
    assert {"Sources and layers", "Hardware"}.isdisjoint(each.value for each in app.subheader)
