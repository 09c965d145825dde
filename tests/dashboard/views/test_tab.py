"""What a browser's tab says: the page, the run, and how many decisions wait."""

import time
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st

from db import queries
from db.store.engine import writing
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import seed

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Each title that was sent, and whether the icon shows that something waits."""
    sent: list[tuple[str, bool]] = []

    def record(*, page_title: str, page_icon: str, **_: Any) -> None:
        sent.append((page_title, "waiting" in page_icon))

    monkeypatch.setattr(st, "set_page_config", record)
    return sent


def test_the_tab_names_page_and_run_and_counts_what_waits(
    open_page: OpenPage, store: sa.Engine, titles: list[tuple[str, bool]]
) -> None:
    report_a_spike(store)
    seed(store, now=time.time())
    last = {}
    for page, query in (
        ("run", {"run": "asking"}),
        ("incident", {"run": "spiky-1"}),
        ("runs", {}),
        ("trainer_lab", {}),
    ):
        open_page(page, **query)
        last[page] = titles[-1]
    assert last == {
        "run": ("(1) Run gpt-small / asking - Lossguard", True),
        "incident": ("Incident gpt-small / stdlib bytes - Lossguard", False),
        "runs": ("(1) Runs - Lossguard", True),
        "trainer_lab": ("Trainer lab - Lossguard", False),
    }


def test_what_waits_in_an_archived_run_does_not_count(
    open_page: OpenPage, store: sa.Engine, titles: list[tuple[str, bool]]
) -> None:
    report_a_spike(store)
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        run.archived_at = time.time()
    open_page()
    assert titles[-1] == ("Runs - Lossguard", False)
