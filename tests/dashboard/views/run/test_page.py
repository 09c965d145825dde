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
from db.steps import writer
from db.steps.archived.places import Place
from db.store.engine import writing
from lossguard.vocabulary.protocol import IMPORTED
from lossguard.vocabulary.source_facts import SOURCE, SourceFacts
from lossguard.vocabulary.states import RunState, SegmentReason
from tests.dashboard.app_content import column, figure, forget, incident_rows, metrics, names, panels
from tests.dashboard.conftest import OpenPage
from tests.dashboard.report.reader import read
from tests.dashboard.seed import STEPS, seed
from tests.db.archive.stored import archive, forget_contents
from tests.db.seed import NOW, add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")
OPTIONAL = {"Sources and layers", "Hardware"}


@pytest.mark.usefixtures("spiky")
def test_the_page_draws_the_live_line_and_what_happened_and_says_what_it_cost(open_page: OpenPage) -> None:
    app = open_page("run", run="spiky-1")
    shown = metrics(app)
    assert shown["Steps of 1,200"] == f"{STEPS:,}"
    assert (shown["Parameters"], shown["Tokens"], shown["Tokens per parameter"]) == ("826 k", "6.55 M", "7.931")
    assert (shown["Steps discarded"], shown["Time lost"]) == ("128", "51 s")
    marks = {"live line", "discarded branch", "not finite", "incident", "intervention", "declared event"}
    assert marks <= names(figure(app))
    assert panels(figure(app)) == ["loss", "grad_norm", "log_z", "lr", "throughput"]
    (row,) = incident_rows(app)
    assert [row[name] for name in ("kind", "onset", "cost", "outcome")] == [
        "loss spike", "409", "128 steps, 51 s", "recovered",
    ]  # fmt: skip
    text = " ".join(markdown.value for markdown in app.markdown)
    assert ("1 rewind cost 128 steps" in text, "Onset at step 409" in text) == (True, False)
    assert OPTIONAL.isdisjoint(each.value for each in app.subheader)
    app.session_state["chart-options"] = True  # as when the popover is open
    assert "discarded branch" not in names(figure(app.run().toggle(key="discarded").set_value(False).run()))
    assert app.query_params["discarded"] == "false"


@pytest.mark.usefixtures("spiky")
def test_a_link_shows_an_incident_steps_in_time_and_the_table_of_a_tab(open_page: OpenPage) -> None:
    app = open_page("run", run="spiky-1", incident="1", steps="400-500", x="time", smooth="10 steps", details="Events")
    text = " ".join(markdown.value for markdown in app.markdown)
    assert "Onset at step 409, detected at 413, peak at 420 (loss 7.28), ended at 427." in text
    assert "Rewind to step 300, skip 200 batches (300 to 499)." in text
    assert "31 robust deviations" in text
    assert [len(table.value) for table in app.dataframe] == [3], "only the table of the open tab is built"
    drawing = figure(app)
    assert drawing["layout"]["xaxis"]["title"]["text"] == "Time"
    raw = next(trace for trace in drawing["data"] if trace["name"] == "live line, raw")
    assert len(column(raw["x"])) == 101


@pytest.mark.parametrize("steps", ["400-500", "", "x-y", "9-3", "\u00b2-\u00b3", "1-" + "9" * 4000])
@pytest.mark.usefixtures("spiky")
def test_a_link_with_steps_shows_these_and_an_invalid_one_the_whole_run(open_page: OpenPage, steps: str) -> None:
    shown = figure(open_page("run", run="spiky-1", steps=steps))["layout"]["xaxis"].get("range")
    assert shown == ([400, 500] if steps == "400-500" else None)


@pytest.mark.parametrize(("last", "first"), [("100", 700), ("10%", 720), ("10 %", None), ("9999", None)])
@pytest.mark.usefixtures("spiky")
def test_a_link_to_the_last_steps_shows_them_with_the_band_that_was_expected(
    open_page: OpenPage, last: str, first: int | None
) -> None:
    drawing = figure(open_page("run", run="spiky-1", last=last))
    assert drawing["layout"]["xaxis"].get("range") == (first and [first, STEPS - 1])
    band = next(trace for trace in drawing["data"] if trace["name"] == "expected")
    assert (min(column(band["x"])), max(column(band["x"]))) == (first or 1, STEPS - 1)  # every second step of 800
    assert all(2.0 < value < 6 for value in column(band["y"])[-50:])


def test_archived_steps_are_drawn_like_stored_ones_and_named_where_their_place_is_away(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path
) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    before = open_page("run", run="spiky-1")
    shown = metrics(before)
    assert (shown["Goodput"], shown["Not training"], shown["Biggest time sink"]) == ("86.1%", "52 s", "Spikes")
    archive(store, Place(str(tmp_path / "place")), "spiky-1")
    forget()
    drawn = [trace.get("y") for trace in figure(open_page("run", run="spiky-1"))["data"]]
    assert drawn == [trace.get("y") for trace in figure(before)["data"]]
    shutil.rmtree(tmp_path / "place")
    forget_contents()
    forget()
    (warning,) = open_page("run", run="spiky-1").warning
    assert warning.value.startswith("The archived steps 0 to 255 of the run 'spiky-1' cannot be read: ")
    assert ": is it mounted? The folder has no file lossguard-archive.txt. " in warning.value
    runs = open_page("runs")
    assert (list(runs.warning), list(runs.exception)) == ([], []), "a list needs no file"


def test_a_run_that_lost_its_guard_and_one_with_a_state_that_is_never_restored_say_why(
    open_page: OpenPage, store: sa.Engine
) -> None:
    with writing(store) as session:
        add_run(session, capabilities=["no-rollback:the guard has failed (KeyError: 'x')", "no-checkpoint:full"])
        run = add_run(session, "r2")
        run.restorable_steps = [0, 10]
        segment = add_segment(session, run, "a")
        details = {"step": 20, "reason": "model.weight holds NaN"}
        values: dict[str, Any] = {"step": 20, "time": NOW, "kind": "checkpoint_uncertified", "details": details}
        commands.add_event(session, run=run, key="e", segment=segment.number, **values)
    assert [each.value for run_id in ("r1", "r2") for each in open_page("run", run=run_id).warning] == [
        "Nothing is rolled back any more: the guard has failed \\(KeyError\\: 'x'\\). "
        "Start the training again to guard it.",
        "Checkpoints cannot be saved: full. A rollback loses more with every step.",
        "A checkpoint without a certificate\\: the state at step 20 is never restored\\: model.weight holds NaN; "
        "the newest good one is step 10.",
    ]


def test_steps_between_logged_ones_count_as_discarded_and_time_is_lost_until_the_first_row_is_back(
    open_page: OpenPage, store: sa.Engine
) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(0, 430, 10), loss=[2.0] * 43)
        resumed = add_segment(session, run, "b", fork_step=305)
        resumed.reason = SegmentReason.RESUME
        steps = range(310, 500, 10)
        times = [NOW + step + 150 for step in steps]
        writer.insert_steps(session, segment=resumed, steps=steps, times=times, metrics={"loss": [2.0] * 19})
    shown = metrics(open_page("run", run="r1"))
    assert (shown["Steps discarded"], shown["Time lost"]) == ("116", "2 min 30 s")  # 305 .. 420
    assert "1 rewind cost 116 steps (19.1% of all steps)" in read("r1").text


@pytest.mark.parametrize(("zone", "moment"), [("Etc/Unknown", "22:13:20"), ("Europe/Berlin", "23:13:20")])
def test_times_are_in_the_browsers_time_zone_or_in_utc_if_that_is_unknown(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, zone: str, moment: str
) -> None:
    with writing(store) as session:
        run = add_run(session)
        run.started_at = add_segment(session, run, "a", fork_step=None).opened_at = 1.7e9
    monkeypatch.setattr(type(st.context), "timezone", zone)
    for table in ("Segments", "Configuration"):
        shown = open_page("run", run="r1", details=table)
        assert f"2023-11-14 {moment}" in shown.dataframe[0].value.to_string()


def test_what_is_known_of_a_run_without_steps_is_shown(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, capabilities=[IMPORTED], config={"tags": ["trial"]})
        run.note = "the baseline, *not* the sweep"
        add_segment(session, run, "a", fork_step=None)
        details = SourceFacts(smoothing=0.9).to_details()
        commands.add_event(session, run=run, key="s", segment=0, step=0, time=1.0, kind=SOURCE, details=details)
    app = open_page("run", run="r1")
    assert metrics(app)["Last loss"] == "-"
    assert app.info[0].value == "No steps reported yet."
    captions = [each.value for each in app.caption]
    assert "run r1 / imported / h / cpu" in captions
    assert "The loss is smoothed" in " ".join(captions)
    text = " ".join(markdown.value for markdown in app.markdown)
    assert r"the baseline, \*not\* the sweep" in text
    assert "trial" in text
    assert not app.button(key="edit-run").disabled


def test_hardware_and_series_of_a_family_have_panels_of_their_own(open_page: OpenPage, store: sa.Engine) -> None:
    columns = {"loss": [2.0, 1.0], "source_loss/web": [3.0, 2.0]}
    readings = {"power": 9.0, "ecc_errors": 1.0}
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), [0, 1], **columns)
        sample = {"time": 5.0, "step": 1, "host": "node-1", "device": "gpu0", "values": readings}
        hardware.add_samples(session, run=run, samples=[sample])
    app = open_page("run", run="r1")
    assert {each.value for each in app.subheader} >= OPTIONAL
    assert any("ECC error of gpu0" in each.value and "by step 1" in each.value for each in app.markdown)
