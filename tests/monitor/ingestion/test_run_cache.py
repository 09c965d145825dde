"""A collector that caches runs between reports concludes the same as one that caches nothing."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from db import queries
from db.models import DetectionState, Run
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API
from monitor.ingestion.run_cache import MAX_REPLAYED_ROWS, MAX_UNSAVED_ROWS, RunCache
from monitor.ingestion.run_state import detection_state
from monitor.problems import Problem
from monitor.settings import Settings
from tests.monitor.client import NOW, Clock, Pair, TestClient, Trainer, collector, writer

CHECKPOINTS = list(range(0, 1000, 50))


def loss(step: int, bad_at: int) -> float:
    return math.nan if step == bad_at else 3.0 + 0.01 * (step * 7 % 13)


def train(trainer: Trainer, clients: Sequence[TestClient], size: int) -> dict[str, Any]:
    """200 quiet steps, a NaN, the rollback that is ordered, and on: what was concluded."""
    trainer.http.put(f"{API}/runs/{trainer.run_id}/policy", json={"name": "palm"})
    segment, step = trainer.open("a"), 0
    for turn in range(300 // size):
        trainer.http = clients[turn % len(clients)]
        steps = range(step, step + size)
        column = {"loss": [loss(at, 200) for at in steps], "eval": [1.0] * size}
        orders = trainer.report(segment, steps, column, restorable_steps=CHECKPOINTS if turn == 0 else None)["orders"]
        step += size
        if orders and segment == 0:
            step = orders[0]["rewind_to"]
            segment = trainer.open("b", step, "rollback", orders[0]["id"])
    fields = ("kind", "state", "onset_step", "detected_step", "score")
    incidents = [[row[name] for name in fields] for row in trainer.get("/incidents")]
    done = [[row[name] for name in ("kind", "state", "rewind_to", "skip_to")] for row in trainer.get()["interventions"]]
    return {"incidents": incidents, "interventions": done, "at": step}


@pytest.mark.slow
def test_reports_in_turn_to_two_collectors_are_judged_as_by_one(pair: Pair) -> None:
    alone = train(Trainer(pair[0], "alone"), pair[:1], 6)
    assert [row[0] for row in alone["incidents"]] == ["nonfinite"]
    assert train(Trainer(pair[0], "in-turn"), pair, 6) == alone


@pytest.mark.slow
def test_the_saved_state_lags_and_is_loaded_to_the_same(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    for first in range(0, 2 * MAX_UNSAVED_ROWS + 16, 8):
        steps = range(first, first + 8)
        metrics = {"loss": [loss(step, -1) for step in steps], "grad_norm": [1.0 + step % 5 for step in steps]}
        trainer.report(segment, steps, metrics)
    with reading(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        lag = session.get_one(DetectionState, run.pk)
        assert (lag.segment, lag.seen_step) == (0, 2 * MAX_UNSAVED_ROWS - 1)
        ((_, cached),) = _cached_runs(http)
        assert detection_state.load(session, run).state_dict() == cached.engine.state_dict()


def _cached_runs(http: TestClient) -> list[Any]:
    return list(http.app.state.collector.reports.intake.cache._cached.values())  # type: ignore[attr-defined]


def test_steps_that_were_passed_over_stay_so_when_the_state_is_loaded(pair: Pair) -> None:
    """A report of steps in front of and behind the last one is stored, and the detection sees nothing of it."""
    states = []
    for run_id, clients in (("alone", pair[:1]), ("in-turn", pair)):
        trainer = Trainer(pair[0], run_id)
        segment = trainer.open("a")
        for turn, steps in enumerate(([0, 1, 2, 4], [3, 5], [6, 7], [8])):
            trainer.http = clients[turn % len(clients)]
            trainer.report(segment, steps, {"loss": [float(step) for step in steps]})
        with reading(pair[0].app.state.collector.engine) as session:  # type: ignore[attr-defined]
            run = queries.run_named(session, run_id=run_id)
            assert run is not None
            states.append(detection_state.load(session, run).state_dict())
    assert states[0] == states[1]


def test_a_young_run_without_a_saved_state_is_loaded_too(pair: Pair) -> None:
    trainer = Trainer(pair[0])
    segment = trainer.open("a")
    for step in range(MAX_REPLAYED_ROWS):
        trainer.http = pair[step % 2]
        trainer.report(segment, [step], {"loss": [loss(step, -1)]})
    ((_, cached),) = _cached_runs(trainer.http)
    assert cached.engine.last_step == MAX_REPLAYED_ROWS - 1
    with reading(trainer.http.app.state.collector.engine) as session:  # type: ignore[attr-defined]
        assert session.scalar(sa.select(DetectionState)) is None
    alone = Trainer(pair[0], "alone")
    steps = range(MAX_REPLAYED_ROWS)
    alone.report(alone.open("a"), steps, {"loss": [loss(step, -1) for step in steps]})
    alike = [one for _, one in _cached_runs(pair[0]) if one.run.id == "alone"]
    assert cached.engine.state_dict() == alike[0].engine.state_dict()


@pytest.mark.slow
def test_a_run_that_is_loaded_for_every_report_is_saved_all_the_same(pair: Pair) -> None:
    """Each collector started to count again, so that nothing was ever saved and every report read the whole run."""
    trainer = Trainer(pair[0])
    segment = trainer.open("a")
    for step in range(3 * MAX_REPLAYED_ROWS):
        trainer.http = pair[step % 2]
        trainer.report(segment, [step], {"loss": [loss(step, -1)]})
    with reading(pair[0].app.state.collector.engine) as session:  # type: ignore[attr-defined]
        (state,) = session.scalars(sa.select(DetectionState)).all()
    assert state.seen_step is not None
    assert state.seen_step >= 2 * MAX_REPLAYED_ROWS - 1


def test_a_run_that_was_deleted_leaves_nothing_cached_for_the_next_of_its_key(pair: Pair) -> None:
    for client in pair:
        trainer = Trainer(client)
        trainer.report(trainer.open("a"), [0, 1], {"old": [1.0, 1.0]})
        assert trainer.get()["metrics"] == ["old"]
        pair[0].delete(f"{API}/runs/r1")
    trainer = Trainer(pair[0])
    trainer.report(trainer.open("a"), [0], {"new": [1.0]})
    assert trainer.get()["metrics"] == ["new"]
    assert trainer.get("/series", metric="new")["last"] == [1.0]


def test_a_refused_report_leaves_nothing_behind_in_the_cache(sqlite_engine: sa.Engine) -> None:
    http = collector(sqlite_engine, max_metrics=3)
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [0], {"loss": [1.0]})
    body = {"segment": 0, "steps": [1], "times": [1.0], "metrics": {"loss": [5.0], "a": [1.0], "b": [1.0]}}
    refused = http.post(f"{API}/runs/r1/reports", json=body)
    assert (refused.status_code, refused.json()["where"]) == (422, ["metrics"])
    assert "LOSSGUARD_MAX_METRICS" in refused.json()["detail"]
    assert trainer.report(segment, [1], {"loss": [1.0], "a": [1.0]})["accepted"] == 1
    assert trainer.get("/series", metric="loss")["last"] == [1.0, 1.0]


def test_runs_that_were_locked_together_are_taken_one_by_one_and_a_second_report_of_one_locks_it_again(
    pair: Pair, sqlite_engine: sa.Engine
) -> None:
    for name in ("a", "b"):
        Trainer(pair[0], name).open("s")
    cache = RunCache()
    with writing(sqlite_engine) as session:
        cache.lock_ahead(session, dict.fromkeys(["b", "a", "no-such-run"], True), NOW)
        before = {name: cache.lock(session, name, NOW).run.revision for name in ("a", "b")}
        assert cache.lock(session, "a", NOW).run.revision == before["a"] + 1
        with pytest.raises(Problem, match="no-such-run"):
            cache.lock(session, "no-such-run", NOW)


def test_a_cached_run_whose_lease_a_plain_report_renews_is_written(
    http: TestClient, clock: Clock, sqlite_engine: sa.Engine
) -> None:
    """Its rows are outside of the session, which would not see the change by itself."""
    trainer = Trainer(http, writer=writer("a"))
    segment = trainer.open("a")
    for step in range(2):
        clock.now = NOW + 10 * step
        trainer.report(segment, [step], {"loss": [1.0]})
    with reading(sqlite_engine) as session:
        assert session.scalar(sa.select(Run.lease_until)) == NOW + 10 + Settings().lease_seconds
