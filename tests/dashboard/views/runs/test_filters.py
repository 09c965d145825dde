"""Which runs the filters and the search of the list leave, and in what order: asked of a store."""

import time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dashboard.data import run_list
from dashboard.views.runs.filters import Filters, SortOrder, orders_of
from db import commands, run_settings
from db.models import Run
from db.store.engine import writing
from lossguard.vocabulary.run_search import parse
from tests.dashboard.seed import save_incident
from tests.db.seed import add_run

OLD, LONG_AGO = 100.0, 600.0
"""Seconds since the last report."""


def add(session: Session, name: str, silent_for: float = 0.0, num_incidents: int = 0, **values: Any) -> Run:
    run = add_run(session, f"id-{name}", name=name, config=values.pop("config", {}), started_at=values.pop("at"))
    run.last_report_at = time.time() - silent_for
    for column, value in {"host": "h1", "devices": ["NVIDIA H100"], "state": "finished", **values}.items():
        setattr(run, column, value)
    run_settings.save(session, run)
    for number in range(1, num_incidents + 1):
        save_incident(session, run, number, state="warning")
    return run


@pytest.fixture
def runs(store: sa.Engine) -> None:
    tags = ["sweep 3", 7]
    with writing(store) as session:
        add(session, "newest", at=9.0, config={"tags": "sweep 3"})
        add(session, "dead", at=8.0, state="running", silent_for=LONG_AGO, num_incidents=2)
        add(session, "alive", at=7.0, state="running", config={"tags": tags}, num_incidents=1)
        held = add(session, "Held", at=6.0, host="h2", silent_for=OLD)
        hold: dict[str, Any] = {"kind": "hold", "state": "proposed", "attempt": 1, "details": {}}
        commands.save_intervention(session, run=held, number=1, now=1.0, **hold)
        paper: dict[str, Any] = {"archived_at": 1.0, "tags": ["paper"], "note": "the baseline"}
        add(session, "old", at=1.0, config={"tags": ["trial"]}, **paper)


def names(
    text: str = "", order: str = SortOrder.ATTENTION, states: tuple[str, ...] = (), tags: tuple[str, ...] = (),
    archived: bool = False, projects: tuple[str, ...] = (),
) -> list[str | None]:  # fmt: skip
    chosen = Filters(projects, states, tags, archived, order)
    found = run_list.found(chosen.where(parse(text)), chosen.run_order, 10)
    assert found.total == len(found.rows)
    return [row.run.name for row in found.rows]


@pytest.mark.usefixtures("runs")
def test_each_order_filter_and_search_finds_its_runs() -> None:
    assert names() == ["Held", "dead", "alive", "newest"]
    assert names(order=SortOrder.NEWEST)[0] == "newest"
    assert set(names(order=SortOrder.REPORT)[:2]) == {"newest", "alive"}
    assert names(order=SortOrder.INCIDENTS)[0] == "dead"
    assert names(order=SortOrder.NAME)[0] == "alive"
    assert names(order="seed, ascending") == names(order=SortOrder.NEWEST)  # a column: they are sorted afterwards
    assert names("GPT held") == names("h100 h2") == ["Held"]
    assert names("nobody") == []
    assert names(tags=("sweep 3",)) == names("sweep") == names('tag:"sweep 3"') == ["alive"]
    assert names(tags=("sweep 3", "other")) == []
    # A silent run does not count as running.
    assert names(states=("running",)) == ["alive"]
    assert names(states=("silent", "needs a person")) == ["Held", "dead"]
    assert names("state:finished") == ["Held", "newest"]


def test_a_run_that_has_ended_with_an_open_incident_is_quiet_and_live_runs_come_first(store: sa.Engine) -> None:
    with writing(store) as session:
        ended = add(session, "ended", at=9.0)
        add(session, "alive", at=1.0, state="running")
        for number, kind in enumerate(("loss_spike", "replay_mismatch"), start=1):
            save_incident(session, ended, number, kind=kind)
    assert names() == ["alive", "ended"]
    assert names(states=("finished",)) == ["ended"]
    assert run_list.num_waiting() == 0


@pytest.mark.usefixtures("runs")
def test_runs_are_filtered_by_project() -> None:
    assert names(projects=("gpt",)) == names()
    assert names(projects=("other",)) == []


@pytest.mark.parametrize(
    ("header", "orders"),
    [
        ("last loss", [("last loss, ascending", "ascending"), ("last loss, descending", "descending")]),
        ("Last report", [(SortOrder.REPORT, "descending")]),
    ],
)
def test_clicks_on_a_header_choose_its_orders_one_after_the_other(header: str, orders: list[tuple[str, str]]) -> None:
    assert orders_of(header) == orders


@pytest.mark.usefixtures("runs")
def test_archived_runs_are_listed_only_when_asked_for_and_tags_of_people_replace_those_of_the_loop() -> None:
    assert "old" not in names()
    assert names(tags=("paper",), archived=True) == names("baseline", archived=True) == names("archived") == ["old"]
    assert names(tags=("trial",), archived=True) == []
    assert len(names("-archived", archived=True)) == 4
