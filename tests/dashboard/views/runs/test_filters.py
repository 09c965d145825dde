"""Which runs the filters and the search of the list leave, and in what order: asked of a store."""

import math
import time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dashboard.data import run_pages
from dashboard.views.runs.filters import Filters
from dashboard.views.runs.listing import SortOrder
from db import commands
from db.models import Metric, Run
from db.store.engine import writing
from lossguard.vocabulary.run_search import parse
from tests.db.seed import add_run

OLD, LONG_AGO = 100.0, 600.0
"""Seconds since the last report."""


def add(session: Session, name: str, *, silent_for: float = 0.0, open_incidents: int = 0, **values: Any) -> Run:
    config = values.pop("config", {})
    run = add_run(session, f"id-{name}", name=name, config=config, started_at=values.pop("started_at"))
    run.host, run.devices, run.state = "h1", ["NVIDIA H100"], "finished"
    run.last_report_at = time.time() - silent_for
    for column, value in values.items():
        setattr(run, column, value)
    for number in range(1, open_incidents + 1):
        add_incident(session, run, number)
    return run


def add_incident(session: Session, run: Run, number: int) -> None:
    """It waits for nobody."""
    commands.save_incident(
        session, run=run, number=number, now=1.0, segment=0, kind="loss_spike", state="warning", signal="loss",
        onset_step=1, detected_step=1, peak_step=1, end_step=None, score=1.0, outcome=None, details={},
    )  # fmt: skip


@pytest.fixture
def runs(store: sa.Engine) -> None:
    with writing(store) as session:
        add(session, "newest", started_at=9.0, config={"tags": "sweep 3"})
        add(session, "dead", started_at=8.0, state="running", silent_for=LONG_AGO, open_incidents=2)
        tagged = {"tags": ["sweep 3", 7]}
        add(session, "alive", started_at=7.0, state="running", config=tagged, open_incidents=1)
        held = add(session, "Held", started_at=6.0, host="h2", silent_for=OLD)
        commands.save_intervention(
            session, run=held, number=1, now=1.0, incident=None, kind="hold", state="proposed", attempt=1, details={}
        )


@pytest.fixture
def sweep(store: sa.Engine) -> None:
    with writing(store) as session:
        for at, (name, lr, loss) in enumerate((("low", 1e-4, 2.0), ("high", 1e-2, math.nan))):
            run = add(session, name, started_at=-at, config={"optimizer": {"lr": lr}, "seed": 7}, open_incidents=1)
            session.flush()
            status = commands.run_status_of(session, run=run, now=1.0)
            status.step = 999
            status.latest_values = {"loss": "NaN" if math.isnan(loss) else loss, "lr": lr / 10}
            session.add_all(Metric(run_pk=run.pk, number=at, name=name) for at, name in enumerate(("loss", "lr")))


def names(
    text: str = "", order: str = SortOrder.ATTENTION, states: tuple[str, ...] = (), tags: tuple[str, ...] = (),
    archived: bool = False,
) -> list[str | None]:  # fmt: skip
    chosen = Filters(states, tags, archived, order)
    found = run_pages.found(chosen.where(parse(text)), chosen.run_order, 10)
    assert found.total == len(found.rows)
    return [run.name for run, _ in found.rows]


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


@pytest.mark.usefixtures("sweep")
def test_a_name_is_a_field_then_a_setting_then_a_metric() -> None:
    assert names("lr>1e-3") == names("optimizer.lr>1e-3") == names("config.lr>1e-3") == ["high"]
    assert names("metric.lr<=1e-5") == names("loss<2.5") == ["low"]
    assert names("loss=nan") == ["high"]
    assert names("steps>=1k seed=7 incidents>0 -host:h2 open_incidents=1") == ["low", "high"]
    assert names("config.loss<9 metric.seed=7") == []


@pytest.mark.usefixtures("runs")
def test_archived_runs_are_listed_only_when_asked_for_and_tags_of_people_replace_those_of_the_loop(
    store: sa.Engine,
) -> None:
    with writing(store) as session:
        add(
            session, "old", started_at=1.0, config={"tags": ["trial"]}, archived_at=1.0, tags=["paper"],
            note="the baseline",
        )  # fmt: skip
    assert "old" not in names()
    assert names(tags=("paper",), archived=True) == names("baseline", archived=True) == names("archived") == ["old"]
    assert names(tags=("trial",), archived=True) == []
    assert len(names("-archived", archived=True)) == 4
