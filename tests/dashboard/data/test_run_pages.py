"""Pages of the list of runs: as many as asked for, in one order whatever the statements that found them."""

import time

import pytest
import sqlalchemy as sa

from dashboard.data import run_pages
from db import commands
from db.runs import pages
from db.runs.filters import RunFilter
from db.runs.orders import RunOrder
from db.store.engine import reading, writing
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def add(store: sa.Engine) -> None:
    """Ended runs, two running ones, a silent one and one that was held, all started among the others."""
    with writing(store) as session:
        for number in range(12):
            run = add_run(session, f"r{number}", name=f"run {number}", started_at=float(number))
            run.state = "running" if number in (2, 5, 7) else "finished"
            run.last_report_at = time.time() - (600 if number == 7 else 0)
            if number in (1, 5):
                commands.save_intervention(
                    session, run=run, number=1, now=1.0, incident=None, kind="hold", state="proposed", attempt=1,
                    details={},
                )  # fmt: skip


def ids(where: RunFilter, limit: int, order: RunOrder = RunOrder.ATTENTION) -> tuple[list[str], int]:
    found = run_pages.found(where, order, limit)
    return [run.id for run, _ in found.rows], found.total


@pytest.mark.parametrize("states", [None, ("finished",), ("silent", "finished"), ("running",)])
def test_pages_by_attention_are_the_beginning_of_the_whole_list(
    store: sa.Engine, states: tuple[str, ...] | None
) -> None:
    add(store)
    where = RunFilter(shown_states=states)
    with reading(store) as session:
        whole = pages.ids(session, where=where, order=RunOrder.ATTENTION, now=time.time())
    assert len(whole) > 0
    for limit in (1, 2, 4, 5, 11, 12, 20):
        assert ids(where, limit) == (whole[:limit], len(whole))


def test_an_empty_store_has_an_empty_page(store: sa.Engine) -> None:
    assert ids(RunFilter(), 5) == ([], 0)
    assert (run_pages.num_runs(), run_pages.num_waiting()) == (0, 0)


def test_runs_by_their_ids_keep_the_order_and_come_with_their_counts(store: sa.Engine) -> None:
    add(store)
    rows = run_pages.named(["r9", "deleted", "r1"])
    assert [(run.id, tally.interventions) for run, tally in rows] == [("r9", 0), ("r1", 1)]
    assert run_pages.num_matching(RunFilter(shown_states=("finished",)), ["r9", "r1"]) == 1
    assert run_pages.num_waiting() == 2
    with writing(store) as session:
        run = commands.lock_run(session, run_id="r1")
        assert run is not None
        run.archived_at = 1.0
    run_pages._num_waiting.clear()  # type: ignore[attr-defined]
    assert run_pages.num_waiting() == 1


def test_a_person_means_runs_by_id_or_name_and_else_the_newest_are_suggested(store: sa.Engine) -> None:
    add(store)
    assert {run.id for run in run_pages.called("r1")} == {"r1", "r10", "r11"}
    assert [run.id for run in run_pages.called("run 3")] == [run.id for run in run_pages.called("gpt/run 3")] == ["r3"]
    assert [run.id for run in run_pages.called("nothing")] == ["r11", "r10", "r9", "r8", "r7"]


def test_a_setting_of_any_run_is_known_by_its_path_or_its_last_part(store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session, "a", config={"optimizer": {"lr": 1e-3}})
    assert run_pages.has_setting("lr")
    assert run_pages.has_setting("optimizer.lr")
    assert not run_pages.has_setting("l")
    assert run_pages.settings() == ["optimizer.lr"]
