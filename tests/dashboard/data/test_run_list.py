"""The list of runs reads a run again only when something of it has changed."""

import pytest
import sqlalchemy as sa

from dashboard.data import run_list
from dashboard.data.run_list import ListedRun
from db import commands, queries
from db.models import Run
from db.runs import overview
from db.runs.overview import Tally
from db.runs.verdicts import Verdict
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunVerdict
from tests.db.seed import add_run, add_segment, add_steps


@pytest.fixture
def read(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the runs that were read, in order. The store has the runs a and b."""
    ids: list[str] = []
    whole = overview.summaries

    def summaries(session: object, *, runs: list[Run], metrics: list[str]) -> object:
        ids.extend(run.id for run in runs)
        return whole(session, runs=runs, metrics=metrics)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "summaries", summaries)
    with writing(store) as session:
        for run_id in ("a", "b"):
            config = {"model": {"width": 8}, "api_key": "secret-1"}
            run = add_run(session, run_id, config=config, started_at=float(ord(run_id)))
            add_steps(session, run, add_segment(session, run, run_id), range(3), loss=[3.0, 2.0, 1.0])
    return ids


def listed(engine: sa.Engine, *metrics: str) -> list[ListedRun]:
    with reading(engine) as session:
        ended = Verdict(RunVerdict.ENDED, "Finished at step 2")
        rows = [ListedRun(run, Tally(), ended) for run in queries.runs(session)]
    return run_list.listed(rows, metrics)


def test_a_run_is_read_again_when_its_revision_rises_or_another_metric_is_asked_for(
    store: sa.Engine, read: list[str]
) -> None:
    first = listed(store, "loss")
    assert [(row.run.id, row.summary.steps, row.summary.metrics["loss"].last) for row in first] == [
        ("b", 3, 1.0),
        ("a", 3, 1.0),
    ]
    assert first[0].settings == {"model.width": 8, "api_key": "***"}
    listed(store)
    assert read == ["b", "a"]
    with writing(store) as session:
        run = commands.lock_run(session, run_id="a")
        assert run is not None
        add_steps(session, run, queries.segments(session, run=run)[0], [3], loss=[0.5])
    assert listed(store)[1].summary.metrics["loss"].last == 0.5
    assert read == ["b", "a", "a"]
    assert listed(store, "lr")[0].summary.metrics["loss"].last == 1.0
    assert read == ["b", "a", "a", "b", "a"]


def test_a_run_that_got_the_key_of_a_deleted_one_is_not_shown_as_that_one(store: sa.Engine, read: list[str]) -> None:
    (deleted, _) = listed(store, "loss")
    with writing(store) as session:
        run = commands.lock_run(session, run_id="b")
        assert run is not None
        commands.delete_run(session, run=run)
    with writing(store) as session:
        run = add_run(session, "c", started_at=200.0)
        add_steps(session, run, add_segment(session, run, "c"), range(3), loss=[9.0, 8.0, 7.0])
        run.revision = deleted.run.revision
        assert run.pk == deleted.run.pk
    assert listed(store, "loss")[0].summary.metrics["loss"].last == 7.0
