"""The report: what it tells of a stored run, and that it needs nothing but itself."""

import time
from collections.abc import Sequence
from datetime import UTC
from html.parser import HTMLParser
from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.report import contents, document
from db import commands, queries
from db.engine import writing
from lossguard.states import RunState
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import LEFT, REWIND, seed
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted"'
VOID = {"meta", "br", "img", "link", "input"}


class Reader(HTMLParser):
    """A file as a browser sees it: its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.headings: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:  # of <p> and <li> none is left open here
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["title"]):
            self.pieces.append(data)
        if self.open[-1:] == ["h2"] and data.strip():
            self.headings.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def attributes(self, *names: str) -> list[str]:
        return [value for _, each in self.tags for name, value in each.items() if name in names and value]


def page(run_id: str = "spiky-1", *, now: float | None = None) -> str:
    told = contents.read_contents(run_id, now=time.time() if now is None else now, zone=UTC)
    return document.render(told, contents.report_incidents(told.facts))


def read(run_id: str = "spiky-1") -> Reader:
    return Reader(page(run_id))


def test_it_tells_the_run_from_the_summary_to_the_configuration(store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    run = read()
    text = run.text
    assert "gpt-small / stdlib bytes finished run spiky-1 / trainer-1 / cpu / commit 0123456789" in text
    assert "All times are UTC." in text
    assert "The run is finished after 800 of 1,200 steps and 6.55 M tokens in 6 min 11 s" in text
    assert "it was not finite at 1 step of the live line" in text
    assert "There was 1 incident: 1 loss spike. What was done: 1 rollback verified; 200 batches were skipped." in text
    assert run.headings == [
        "Summary", "Curves", "Incidents", "Incident 1: loss spike", "Lost compute", "Compute",
        "Configuration, versions and hardware", "Interventions", "Skip ledger", "Events", "Segments",
    ]  # fmt: skip
    assert "batch_size 32" in text
    assert "torch version 2.9.0" in text


def test_it_tells_what_was_lost_in_steps_tokens_flops_and_time(store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    text, steps = read().text, LEFT - REWIND
    flops = 6 * 826_368 * steps * 32 * 256
    assert f"rollback, incident 1 {REWIND} {steps} 1.05 M {flops:.2e} 51 s" in text
    assert f"all {steps} (13.8%) 1.05 M {flops:.2e} 51 s (13.8%)" in text


def test_every_incident_has_its_picture_its_numbers_its_course_and_the_reasons(store: sa.Engine) -> None:
    seed(store, now=time.time())
    run = Reader(page())
    labels = run.attributes("aria-label")
    assert "Signals around incident 1" in labels
    told = ("Farthest in the incident", "Rollback decided", "Verified", "The loss was still rising after 8 steps")
    assert [each for each in told if each not in run.text] == []
    assert "Batches skipped: [300, 500)." in run.text
    assert "incident-1" in run.attributes("id")
    assert "#incident-1" in run.attributes("href")


def test_the_curves_hold_every_metric_that_exists_and_say_which_are_left_out(store: sa.Engine) -> None:
    assert contents.curve_names(["lr", "loss", "tokens", "batch_index", "my/score", "throughput"]) == [
        "loss", "lr", "throughput", "my/score",
    ]  # fmt: skip
    seed(store, now=time.time())
    told = contents.read_contents("spiky-1", now=time.time(), zone=UTC)
    assert list(told.curves) == ["loss", "perplexity", "grad_norm", "log_z", "lr", "throughput"]
    left_out = contents.ReportContents(told.facts, told.curves, ["my/score"], told.lost, told.written_at, told.zone)
    assert "Left out, because they are many: my/score." in Reader(document.render(left_out, [])).text


def test_it_loads_nothing_and_runs_nothing(store: sa.Engine) -> None:
    seed(store, now=time.time())
    run = read()
    links = run.attributes("src", "href", "xlink:href", "data", "action")
    assert links
    assert all(link.startswith("#") for link in links)
    assert not {"script", "iframe", "object", "link", "base"} & {tag for tag, _ in run.tags}
    assert "url(http" not in page()
    (policy,) = [each["content"] for tag, each in run.tags if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_what_people_wrote_is_text_everywhere(store: sa.Engine) -> None:
    hostile_story(store)
    run = read("r1")
    assert not {"script", "img"} & {tag for tag, _ in run.tags}
    assert not any(name.startswith("on") for _, each in run.tags for name in each)
    assert run.text.count("alert(1)") >= 6


def hostile_story(store: sa.Engine) -> None:
    """Everything that a person or a loop can name is HOSTILE."""
    with writing(store) as session:
        seen: Any = {"config": {HOSTILE: {HOSTILE: HOSTILE}}, "devices": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
        run = add_run(session, name=HOSTILE, project=HOSTILE, command=HOSTILE, host=HOSTILE, **seen)
        told = {"reasons": [HOSTILE], "peak_value": "NaN"}
        commands.save_incident(
            session, run=run, number=1, segment=0, now=1.0, kind=HOSTILE[:32], state="open", signal=HOSTILE[:60],
            onset_step=3, detected_step=4, score=None, outcome=None, details=told,
        )  # fmt: skip
        queries.incidents(session, run=run)[0].verdict = {
            "cause": HOSTILE, "sentence": HOSTILE, "evidence": {"arms": [{"state": HOSTILE, "batches": HOSTILE}]},
        }  # fmt: skip
        commands.add_event(session, run=run, key="e", segment=0, step=1, time=1.0, kind="note", details={"x": HOSTILE})


def test_a_verdict_of_a_replay_is_told(store: sa.Engine) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        queries.incidents(session, run=run)[0].verdict = {
            "cause": "data_x_state",
            "sentence": "Only both together do it.",
            "culprits": [{"batch_from": 412, "batch_to": 414}],
            "evidence": {"arms": [{"state": "same", "checkpoint": 400, "batches": "same", "reproduced": True}]},
        }
    text = read().text
    assert "Only both together do it. Cause: these batches in this state. Batches that do it: [412, 414)." in text
    assert "same (step 400) same yes" in text


def test_what_waits_for_a_person_stands_on_top(store: sa.Engine) -> None:
    report_a_spike(store)
    text = read("asking").text
    assert "One thing waits for a person." in text
    assert text.index("Waits for a person Intervention 1 waits for approval. Rewind to") < text.index("Summary")


def test_a_run_without_a_step_is_told_too(store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session)
    text = read("r1").text
    assert "gpt / r1 silent" in text
    assert "No step has been reported yet." in text
    assert "There was no incident. Nothing that was computed was given up. Nothing waits for a person." in text


def with_incidents(store: sa.Engine, numbers: Sequence[int]) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        for number in numbers:
            commands.save_incident(
                session, run=run, number=number, segment=1, now=1.0, kind="grad_spike", state="closed", signal="loss",
                onset_step=500 + number, detected_step=501 + number, end_step=503 + number, score=float(number),
                outcome="recovered", details={},
            )  # fmt: skip


def pictures(run: Reader) -> list[str]:
    return [each.removeprefix("Signals around incident ") for each in run.attributes("aria-label") if "around" in each]


def test_too_many_incidents_for_pictures_are_told_and_none_is_dropped(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_incidents(store, range(2, 8))
    monkeypatch.setattr(contents, "MAX_PICTURES", 3)
    monkeypatch.setattr(contents, "MAX_INCIDENT_SECTIONS", 5)
    monkeypatch.setattr(document, "MAX_INCIDENT_SECTIONS", 5)
    run = read()
    assert pictures(run) == ["1", "6", "7"]  # the one that was acted on, and the highest scores
    assert run.text.count("No picture: at most") == 2
    assert [f"#incident-{number}" in run.attributes("href") for number in range(1, 8)] == [True] * 7
    assert "2 of them, those with the lowest scores, have no section below." in run.text


def test_a_configuration_without_end_is_cut_and_says_so(store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session, config={"model": {"layers": 4}, "seeds": list(range(10_000)), "name": "last"})
    run = read("r1")
    assert "model.layers 4" in run.text
    assert ".. (58,890 characters) name last" in run.text


def test_events_without_end_are_cut_and_said(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(store, now=time.time())
    monkeypatch.setattr(document, "MOST_EVENTS", 2)
    assert "Older events that are not marked: 1." in read().text
    monkeypatch.setattr(document, "MOST_EVENTS", 3)
    assert "not marked" not in read().text


def test_pictures_end_where_the_file_would_become_too_large(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with_incidents(store, range(2, 5))
    monkeypatch.setattr(document, "MOST_BYTES", 60_000)
    run = read()
    assert pictures(run)[0] == "1"
    assert 1 <= len(pictures(run)) < 4
    assert len(pictures(run)) + run.text.count("No picture:") == 4
