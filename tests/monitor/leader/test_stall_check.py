"""A run without new steps becomes an incident, by the clock of the database, whichever collector looks."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from db.models import Intervention, Order, Run, RunStatus
from db.store import leader
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API, IMPORTED, NO_HEARTBEAT
from monitor.leader import stall_check
from tests.monitor.client import NOW, Clock, TestClient, Trainer, collector
from tests.monitor.mlflow import MlflowClient
from tests.monitor.scenarios import lease_of, noise, quiet_since, trained

STEPS = 40


def stepping(http: TestClient, run_id: str = "r1", **options: Any) -> Trainer:
    """A trainer that has reported STEPS steps of a second each."""
    trainer = Trainer(http, run_id, **options)
    trainer.report(trainer.open("a"), range(STEPS), {"loss": noise(1, STEPS)})
    return trainer


def stalls(trainer: Trainer) -> list[dict[str, Any]]:
    return [each for each in trainer.get("/incidents") if each["kind"] == "stall"]


def test_a_run_that_stops_stepping_is_stalled_once_and_recovers_with_its_next_step(
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    trainer, lease = stepping(http_on_both), lease_of(engine)
    quiet_since(engine, step=100.0)
    assert stall_check.look(engine, lease) == []
    quiet_since(engine, step=130.0, report=1.0)
    lease = lease_of(engine)  # of now, however long that took
    assert stall_check.look(engine, lease) == ["r1"]
    assert stall_check.look(engine, lease) == []
    (found,) = stalls(trainer)
    assert (found["state"], found["onset_step"], found["outcome"]) == ("open", STEPS - 1, "ongoing")
    assert "the process lives" in " ".join(found["details"]["reasons"])
    trainer.report(0, [STEPS], {"loss": [3.0]})
    (found,) = stalls(trainer)
    assert (found["state"], found["end_step"], found["outcome"]) == ("closed", STEPS, "recovered")


@pytest.mark.parametrize(
    ("options", "report", "words"),
    [({}, 130.0, "No reports arrive at all"), ({"capabilities": [NO_HEARTBEAT]}, 130.0, "sends no heartbeats")],
)
def test_the_incident_says_whether_anything_still_comes(
    http: TestClient, sqlite_engine: sa.Engine, options: dict[str, Any], report: float, words: str
) -> None:
    trainer = stepping(http, **options)
    quiet_since(sqlite_engine, step=130.0, report=report)
    stall_check.look(sqlite_engine, lease_of(sqlite_engine))
    assert words in " ".join(stalls(trainer)[0]["details"]["reasons"])


def test_a_stall_orders_nothing_in_mode_auto(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = stepping(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "auto"})
    quiet_since(sqlite_engine, step=4000.0)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == ["r1"]
    assert trainer.report(0, [], {})["orders"] == []
    with writing(sqlite_engine) as session:
        assert session.scalars(sa.select(Intervention)).all() == []
        assert session.scalars(sa.select(Order)).all() == []


@pytest.mark.parametrize("state", ["finished", "interrupted", "failed"])
def test_a_run_that_has_ended_is_not_stalled_and_its_end_ends_a_stall(
    http: TestClient, sqlite_engine: sa.Engine, state: str
) -> None:
    trainer, ended, lease = stepping(http), stepping(http, "r2"), lease_of(sqlite_engine)
    http.post(f"{API}/runs/r2/finish", json={"state": state, "at": NOW})
    quiet_since(sqlite_engine, step=4000.0)
    assert stall_check.look(sqlite_engine, lease) == ["r1"]
    assert stalls(ended) == []
    http.post(f"{API}/runs/r1/finish", json={"state": state, "at": NOW})
    (found,) = stalls(trainer)
    assert (found["state"], found["outcome"]) == ("closed", "ongoing")
    assert state in found["details"]["reasons"][-1]


def test_a_declared_pause_is_respected_and_is_a_stall_once_it_is_over(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer, lease = stepping(http), lease_of(sqlite_engine)
    pause = {"key": "p", "kind": "expect", "step": STEPS, "time": NOW, "details": {"next_report_in": 900.0}}
    trainer.report(0, [], {}, events=[pause])
    quiet_since(sqlite_engine, step=800.0)
    with writing(sqlite_engine) as session:
        session.execute(sa.update(RunStatus).values(expected_by=lease.now + 100.0))
    assert stall_check.look(sqlite_engine, lease) == []
    with writing(sqlite_engine) as session:
        session.execute(sa.update(RunStatus).values(expected_by=lease.now - 1.0))
    assert stall_check.look(sqlite_engine, lease) == ["r1"]


def test_a_run_that_cannot_be_read_does_not_hide_the_stalls_of_the_others(
    http: TestClient, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(engine: sa.Engine, lease: leader.Lease, run_id: str) -> bool:
        if run_id == "broken":
            raise LookupError("it cannot be read")
        return open_stall(engine, lease, run_id)

    stepping(http, "broken"), stepping(http, "r2")
    quiet_since(sqlite_engine, step=4000.0)
    open_stall = stall_check.open_stall
    monkeypatch.setattr(stall_check, "open_stall", opened)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == ["r2"]


def test_runs_for_which_a_look_has_no_time_are_found_by_the_next_one(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    stepping(http), stepping(http, "r2")
    quiet_since(sqlite_engine, step=4000.0)
    lease, in_time = lease_of(sqlite_engine), iter([True, False])
    assert stall_check.look(sqlite_engine, lease, lambda: next(in_time)) == ["r1"]
    assert stall_check.look(sqlite_engine, lease) == ["r2"]


def test_a_run_that_is_held_is_not_stalled(http: TestClient, sqlite_engine: sa.Engine) -> None:
    stepping(http)
    quiet_since(sqlite_engine, step=4000.0)
    values = {"number": 1, "kind": "hold", "state": "applied", "attempt": 1, "details": {}}
    with writing(sqlite_engine) as session:
        pk = session.scalars(sa.select(Run.pk)).one()
        session.add(Intervention(run_pk=pk, created_at=NOW, changed_at=NOW, **values))
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == []


@pytest.mark.parametrize("end", ["release", "rollback", "segment"])
def test_the_time_of_a_hold_is_no_stall_once_it_has_ended(
    http: TestClient, sqlite_engine: sa.Engine, clock: Clock, end: str
) -> None:
    trainer, segment = trained(http)
    assert http.post(f"{API}/runs/r1/hold", json={}).status_code == 200
    (hold,) = trainer.report(segment, [], {})["orders"]
    answer = {"state": "applied", "key": hold["key"]}
    assert http.put(f"{API}/orders/{hold['id']}", json=answer).status_code == 200
    quiet_since(sqlite_engine, step=4000.0)
    lease = lease_of(sqlite_engine)
    assert stall_check.look(sqlite_engine, lease) == []
    clock.now = lease.now
    if end == "segment":
        segment = trainer.open("b", 300, "resume")
    else:
        assert http.post(f"{API}/runs/r1/{end}", json={}).status_code == 200
    assert stall_check.look(sqlite_engine, lease) == []
    clock.now += 5.0
    for order in trainer.report(segment, [], {})["orders"]:
        http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": order["key"], "detail": "no"})
    for step in (300, 301):
        trainer.report(segment, [step], {"loss": [3.0]}, times=[NOW + step + 8 * 3600.0])
    with reading(sqlite_engine) as session:
        assert (session.scalars(sa.select(RunStatus.stall_after)).one() or math.inf) < 3600.0


def test_no_step_is_due_while_an_order_is_carried_out(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer, segment = trained(http)
    due: list[tuple[int, bool]] = []
    for loss in (3.0, math.nan):
        orders = trainer.report(segment, [300 + len(due)], {"loss": [loss]})["orders"]
        with reading(sqlite_engine) as session:
            due.append((len(orders), session.scalars(sa.select(RunStatus.stall_after)).one() is not None))
    assert due == [(0, True), (1, False)]


def test_the_end_of_a_run_that_a_client_of_mlflow_logged_ends_its_stall(
    http: TestClient, sqlite_engine: sa.Engine, clock: Clock
) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": noise(1, STEPS)})
    clock.now += 60.0
    client.post("runs/outputs", run_id=client.run_id)  # no row waits any more
    quiet_since(sqlite_engine, step=4000.0)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == [client.run_id]
    client.end("FAILED")
    (found,) = client.run("/incidents")
    assert (found["kind"], found["state"]) == ("stall", "closed")
    assert found["details"]["reasons"][-1] == "The run has ended without further steps: failed."


def test_a_run_of_the_past_is_not_stalled(http: TestClient, sqlite_engine: sa.Engine) -> None:
    stepping(http, capabilities=[IMPORTED])
    quiet_since(sqlite_engine, step=4000.0)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == []


@pytest.mark.parametrize(("silence", "found"), [(500.0, []), (700.0, ["r1"])])
def test_before_its_first_step_and_after_a_restore_a_run_has_ten_minutes(
    http: TestClient, sqlite_engine: sa.Engine, silence: float, found: Sequence[str]
) -> None:
    trainer = stepping(http)
    trainer.open("b", 20, "rewind", opened_at=NOW + 100)
    quiet_since(sqlite_engine, step=silence)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == found


def test_collectors_that_were_all_away_wait_for_the_spools_before_they_call_a_run_stalled(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    stepping(http)
    quiet_since(sqlite_engine, step=4000.0)
    lease = lease_of(sqlite_engine)
    back = leader.Lease(lease.role, lease.holder, lease.term, lease.now - 60.0, lease.now)
    assert stall_check.look(sqlite_engine, back) == []
    later = leader.Lease(lease.role, lease.holder, lease.term, lease.now - 130.0, lease.now)
    assert stall_check.look(sqlite_engine, later) == ["r1"]


def test_a_leader_that_has_lost_its_lease_writes_nothing(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer, old = stepping(http), lease_of(sqlite_engine)
    quiet_since(sqlite_engine, step=4000.0)
    with writing(sqlite_engine) as session:
        session.execute(sa.update(leader.Leader).values(until=leader.now(session) - 1.0))
    lease_of(sqlite_engine, "another")
    assert stall_check.look(sqlite_engine, old) == []
    assert stalls(trainer) == []


@pytest.mark.slow
@pytest.mark.parametrize("step_comes", [False, True])
def test_collectors_at_once_open_one_incident_and_lose_no_report(engine: sa.Engine, step_comes: bool) -> None:
    """Two looks of one term, as before and after a pause of the process, while a report arrives."""
    lease = lease_of(engine)
    with collector(engine, clock=time.time) as http:
        for number in range(5):
            trainer = stepping(http, f"r{number}")
            quiet_since(engine, step=4000.0)
            with ThreadPoolExecutor(3) as pool:
                looks = [pool.submit(stall_check.open_stall, engine, lease, trainer.run_id) for _ in range(2)]
                if step_comes:
                    trainer.report(0, [STEPS], {"loss": [3.0]})
                opened = [look.result() for look in looks].count(True)
            trainer.report(0, [STEPS + 1, STEPS + 2], {"loss": [3.0, 3.0]})
            found = stalls(trainer)
            assert len(found) == opened <= 1
            assert step_comes or opened == 1
            assert all(each["state"] == "closed" for each in found)
            assert trainer.get("")["steps_effective"] == STEPS + 2 + step_comes


def test_a_run_that_is_sampled_or_arrives_in_bulk_is_judged_by_its_own_gaps(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    for first in (0, 10, 20):
        times = [NOW + 200.0 * step for step in range(first, first + 10)]  # a row every 200 s
        trainer.report(segment, range(first, first + 10), {"loss": noise(1, 10)}, times=times)
    with writing(sqlite_engine) as session:
        assert session.scalars(sa.select(RunStatus.stall_after)).one() == 800.0
    quiet_since(sqlite_engine, step=700.0)
    assert stall_check.look(sqlite_engine, lease_of(sqlite_engine)) == []
