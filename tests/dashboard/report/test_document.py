"""The report describes a stored run, and needs nothing but its own file."""

import time
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

import pytest
import sqlalchemy as sa

from dashboard.report.contents import ReportLimits
from db import queries
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.live import report_a_spike
from tests.dashboard.report.reader import Reader, hostile_run, page, read
from tests.dashboard.seed import save_incident, seed, stored
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def test_it_describes_the_run_from_the_summary_to_the_configuration(store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    run = read()
    text = run.text
    assert "gpt-small / stdlib bytes Finished at step 799, loss 2.15 run spiky-1 / trainer-1 / " in text
    assert "Time zone: UTC." in text
    assert "The run finished after 800 of 1,200 steps (6.55 M tokens) in 6 min 11 s. It started on " in text
    assert "the loss was not finite at 1 step of the live line" in text
    assert "1 loss spike. Interventions: 1 rollback verified; 200 batches skipped." in text
    assert run.headings == [
        "Summary", "Curves", "Incidents", "Incident 1: loss spike", "Goodput", "Lost compute", "Compute",
        "Configuration, versions and hardware", "Interventions", "Skip ledger", "Notes", "Events", "Segments",
    ]  # fmt: skip
    assert "batch_size 32" in text
    assert "torch version 2.9.0" in text


def test_every_incident_has_its_picture_its_numbers_its_timeline_and_its_reasons(store: sa.Engine) -> None:
    seed(store, now=time.time())
    run = Reader(page())
    labels = run.attributes("aria-label")
    assert "Signals around incident 1" in labels
    expected = ("Most extreme value", "Rollback decided", "Verified", "The loss was still rising after 8 steps")
    assert [each for each in expected if each not in run.text] == []
    assert "Batches skipped: 300 to 499." in run.text
    assert "incident-1" in run.attributes("id")
    assert "#incident-1" in run.attributes("href")


def test_it_loads_nothing_and_runs_only_what_draws_its_pictures(store: sa.Engine) -> None:
    seed(store, now=time.time())
    run = read()
    links = run.attributes("src", "href", "xlink:href", "data", "action")
    assert links
    assert all(link.startswith("#") for link in links)
    assert not {"iframe", "object", "link", "base"} & {tag for tag, _ in run.tags}
    assert "url(http" not in run.text
    types = [each.get("type") for tag, each in run.tags if tag == "script"]
    assert types == ["application/json"] * len(pictures_of(run)) + [None, None]
    (policy,) = [each["content"] for tag, each in run.tags if each.get("http-equiv") == "Content-Security-Policy"]
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in run.scripts[-2:]]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_what_people_wrote_is_text_everywhere(store: sa.Engine) -> None:
    hostile_run(store)
    run = read("r1")
    assert "img" not in {tag for tag, _ in run.tags}
    assert not any("alert" in script for script in run.scripts[-2:])
    assert not any(name.startswith("on") for _, each in run.tags for name in each)
    assert run.text.count("alert(1)") >= 6


def pictures_of(run: Reader) -> list[str]:
    """Their labels."""
    return [str(each["aria-label"]) for _, each in run.tags if each.get("class") == "chart"]


def test_the_verdict_of_a_replay_is_shown(store: sa.Engine) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        run = stored(session)
        queries.incidents(session, run=run)[0].verdict = {
            "cause": "data_x_state",
            "sentence": "Only both together do it.",
            "culprits": [{"batch_from": 412, "batch_to": 414}],
            "evidence": {"arms": [{"state": "same", "checkpoint": 400, "batches": "same", "reproduced": True}]},
        }
    text = read().text
    assert "Only both together do it. Cause: these batches in this state. Culprit batches: 412 to 413." in text
    assert "same (step 400) same yes" in text


def test_pending_decisions_come_first(store: sa.Engine) -> None:
    report_a_spike(store)
    text = read("asking").text
    assert "1 decision is pending." in text
    assert text.index("Needs a decision Intervention 1 is waiting for approval. Rewind to") < text.index("Summary")


def test_a_run_without_a_step_has_a_report_too(store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session)
    run = read("r1")
    text = run.text
    assert run.scripts == [], "nothing is drawn"
    assert "gpt / r1 Not watched: no report for" in text
    assert "No step has been reported yet." in text
    assert "There were no incidents. No steps were discarded. No decision is pending." in text


def with_incidents(store: sa.Engine, numbers: Sequence[int]) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        run = stored(session)
        for number in numbers:
            save_incident(
                session, run, number, segment=1, kind="grad_spike", state="closed", onset_step=500 + number,
                detected_step=501 + number, end_step=503 + number, score=float(number), outcome="recovered",
            )  # fmt: skip


def pictures(run: Reader) -> list[str]:
    return [each.removeprefix("Signals around incident ") for each in pictures_of(run) if "around" in each]


def test_incidents_without_a_picture_or_a_section_are_counted_and_none_is_dropped(store: sa.Engine) -> None:
    with_incidents(store, range(2, 8))
    run = read(limits=ReportLimits(max_incident_pictures=3, max_incident_sections=5))
    assert pictures(run) == ["1", "6", "7"]  # the one that was acted on, and the highest scores
    assert run.text.count("No picture: a report has at most 3 of them") == 2
    assert [f"#incident-{number}" in run.attributes("href") for number in range(1, 8)] == [True] * 7
    assert "the 2 incidents with the lowest scores have no section below." in run.text


def test_events_beyond_the_limit_are_counted(store: sa.Engine) -> None:
    seed(store, now=time.time())
    assert "Older events without a mark: 1." in read(limits=ReportLimits(max_events=2)).text
    assert "without a mark" not in read(limits=ReportLimits(max_events=3)).text


def test_pictures_are_left_out_where_the_file_would_become_too_large(store: sa.Engine) -> None:
    with_incidents(store, range(2, 5))
    run = read(limits=ReportLimits(max_picture_bytes=90_000))
    assert pictures(run)[0] == "1"
    assert 1 <= len(pictures(run)) < 4
    assert len(pictures(run)) + run.text.count("No picture:") == 4


@pytest.mark.system
def test_texts_of_any_length_make_a_report_of_bounded_size(store: sa.Engine) -> None:
    endless = "<b>x " * 2_000
    with writing(store) as session:
        run = add_run(session, config={f"setting{number}": endless for number in range(400)})
        for number in range(1, 301):
            save_incident(session, run, number, score=float(number), details={"reasons": [endless] * 30})
        session.flush()
        arms = [{"state": endless, "batches": endless}] * 30
        for each in queries.incidents(session, run=run):
            each.verdict = {"cause": "data", "sentence": endless, "evidence": {"arms": arms}}
    report = page("r1", ReportLimits(max_incident_pictures=0))
    assert len(report) < 4_000_000
    text = Reader(report).text
    assert "incidents with the lowest scores have no section below" in text
    assert "Incident 300: loss spike" in text
    assert "The dashboard shows 2" in text
