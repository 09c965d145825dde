"""Reports as a browser reads them, and a run that tries to inject markup into one."""

import time
from datetime import UTC
from html.parser import HTMLParser
from typing import Any

import sqlalchemy as sa

from dashboard.report.contents import ReportLimits, read_contents, read_incidents
from dashboard.report.document import render
from db import commands, queries
from db.records import step_notes
from db.store.engine import writing
from tests.dashboard.seed import save_incident
from tests.db.seed import add_run

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
        self.scripts: list[str] = []
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
        if self.open[-1:] not in (["style"], ["title"], ["script"]):
            self.pieces.append(data)
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        if self.open[-1:] == ["h2"] and data.strip():
            self.headings.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    @property
    def pictures(self) -> str:
        """The values of all pictures; the two scripts that draw them come last."""
        return " ".join(self.scripts[:-2])

    def attributes(self, *names: str) -> list[str]:
        return [value for _, each in self.tags for name, value in each.items() if name in names and value]


def page(run_id: str = "spiky-1", limits: ReportLimits | None = None) -> str:
    """The report as HTML."""
    contents = read_contents(run_id, now=time.time(), zone=UTC, limits=limits)
    return render(contents, read_incidents(contents.facts, contents.limits))


def read(run_id: str = "spiky-1", limits: ReportLimits | None = None) -> Reader:
    return Reader(page(run_id, limits))


def hostile_run(store: sa.Engine) -> None:
    """Everything that a person or a loop can name is HOSTILE."""
    with writing(store) as session:
        seen: Any = {"config": {HOSTILE: {HOSTILE: HOSTILE}}, "devices": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
        run = add_run(session, name=HOSTILE, project=HOSTILE, command=HOSTILE, host=HOSTILE, **seen)
        details = {"reasons": [HOSTILE], "peak_value": "NaN"}
        save_incident(session, run, kind=HOSTILE[:32], signal=HOSTILE[:60], details=details)
        queries.incidents(session, run=run)[0].verdict = {
            "cause": HOSTILE, "sentence": HOSTILE, "evidence": {"arms": [{"state": HOSTILE, "batches": HOSTILE}]},
        }  # fmt: skip
        commands.add_event(session, run=run, key="e", segment=0, step=1, time=1.0, kind="note", details={"x": HOSTILE})
        step_notes.add_step_note(session, run=run, step=1, text=HOSTILE, author=HOSTILE[:320], now=1.0)
