"""Runs are registered, many at once too, up to a limit; a new segment takes the detection back to its first step."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3

from db.models import BESIDE, Segment
from db.records import live_runs
from db.store.engine import reading
from lossguard.spool.writer import DELIVERS
from lossguard.vocabulary.protocol import API, NO_HEARTBEAT
from tests.dashboard.serving import serving
from tests.monitor.client import NOW, TestClient, Trainer, collector, writer
from tests.monitor.scenarios import noise, obey, train_until_nan


def test_beyond_the_limit_of_runs_a_known_one_is_still_resumed(sqlite_engine: sa.Engine) -> None:
    http = collector(sqlite_engine, max_runs=2)
    for run_id in ("r1", "r2", "r1"):
        Trainer(http, run_id)
    answer = http.post(f"{API}/runs", json={"id": "r3", "project": "p", "started_at": 1.0})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert "LOSSGUARD_MAX_RUNS" in answer.json()["detail"]
    assert len(http.get(f"{API}/runs").json()) == 2


def test_secrets_that_an_older_sdk_sends_are_not_stored(sqlite_engine: sa.Engine) -> None:
    http = collector(sqlite_engine)
    sent = {"command": "python train.py --hf-token Zq81xYvL", "config": {"api_key": "Zq81xYvL", "lr": 0.1}}
    http.post(f"{API}/runs", json={"id": "r", "project": "p", "started_at": 1.0, **sent})
    with sqlite_engine.connect() as connection:
        (row,) = connection.execute(sa.text("SELECT command, config FROM runs"))
    assert row.command == "python train.py --hf-token ***"
    assert "Zq81xYvL" not in row.config


@pytest.mark.slow
def test_trainers_that_all_start_at_once_are_all_registered(engine: sa.Engine) -> None:
    """Fifty of them held every thread and every connection, each waiting for the other, until 30 s were over."""

    def register(number: int) -> int:
        spec = {"id": f"r{number}", "project": "gpt", "started_at": 1.0}
        return urllib3.request("POST", f"{url}{API}/runs", json=spec, retries=False, timeout=60.0).status

    with serving(engine) as url, ThreadPoolExecutor(60) as trainers:
        start = time.monotonic()
        assert set(trainers.map(register, range(60))) == {201}
        assert time.monotonic() - start < 29


def test_a_run_id_belongs_to_the_project_that_used_it_first(http: TestClient) -> None:
    Trainer(http, "r1", project="gpt", writer=writer("a"))
    body = {"id": "r1", "project": "bert", "capabilities": [], "started_at": NOW}
    refused = http.post(f"{API}/runs", json=body)
    assert (refused.status_code, refused.json()["where"]) == (409, ["body", "id"])
    assert "choose another run id" in refused.json()["detail"]
    assert Trainer(http, "r1", project="gpt").get()["capabilities"] == ["rollback"]


def test_a_pause_that_a_process_announced_before_it_died_does_not_hide_a_stall_of_the_next(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http, writer=writer("a"))
    pause = {"key": "p", "kind": "expect", "step": 0, "time": NOW, "details": {"next_report_in": 86_400.0}}
    trainer.report(trainer.open(f"{writer('a').session}-0"), [], {}, events=[pause])

    def is_stalled() -> bool:
        with reading(sqlite_engine) as session:
            return bool(live_runs.without_steps(session, now=NOW + 700.0, since=0.0, default=600.0, limit=1))

    assert not is_stalled()
    Trainer(http, writer=writer("a"), capabilities=["rollback", "lr_scale"])
    assert not is_stalled(), "the same process says what else it can do"
    following = Trainer(http, writer=writer("a", 2))
    assert is_stalled()
    following.report(0, [], {}, events=[pause | {"key": "q"}])  # what the dead process has left
    assert not is_stalled()
    Trainer(http, writer=writer("a", 2))
    assert is_stalled()


def test_a_run_without_a_step_of_a_client_without_heartbeats_is_not_stalled(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    """An MLflow client that sent its request twice has registered two runs, and reports to one of them."""
    trainer = Trainer(http, capabilities=[NO_HEARTBEAT])

    def is_stalled() -> bool:
        with reading(sqlite_engine) as session:
            return bool(live_runs.without_steps(session, now=NOW + 9000.0, since=0.0, default=600.0, limit=1))

    assert not is_stalled()
    trainer.report(trainer.open("a"), [0], {"loss": [1.0]})
    assert is_stalled()


def test_after_a_rollback_the_detectors_hold_nothing_of_the_discarded_branch(http: TestClient) -> None:
    """What is learnt after the fork equals what a run that never left the line has learnt."""
    straight, forked = (Trainer(http, name, capabilities=[]) for name in ("straight", "forked"))
    quiet = noise(5, 400)
    straight.report(straight.open("a"), range(400), {"loss": quiet})
    forked.report(forked.open("a"), range(300), {"loss": quiet[:280] + [9.0] * 20})
    segment = forked.open("b", 280, "rewind")
    forked.report(segment, range(280, 400), {"loss": quiet[280:]})
    spike = {"loss": [quiet[0] + 1.0] * 4}
    straight.report(0, range(400, 404), spike)
    forked.report(segment, range(400, 404), spike)
    scores = [trainer.get("/incidents")[-1]["score"] for trainer in (straight, forked)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("has_ended", [False, True])
def test_the_spool_of_another_folder_that_arrives_late_does_not_take_over_the_live_line(
    http: TestClient, *, has_ended: bool
) -> None:
    trainer = Trainer(http, writer=writer("a"))
    trainer.report(trainer.open("a"), range(100), {"loss": noise(1, 100)})
    if has_ended:
        http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": NOW}, headers=trainer.headers)
    late = Trainer(http, writer=replace(writer("b"), process=f"{DELIVERS}1@host-b"))
    late.report(late.open("late", 40, "resume", opened_at=NOW + 7200), range(40, 60), {"loss": [math.nan] * 20})
    assert trainer.get()["newest_step"]["step"] == 99
    assert trainer.get("/incidents") == []
    assert [segment["live_order"] for segment in trainer.get()["segments"]] == [0, BESIDE]


@pytest.mark.parametrize("clocks", [(7200.0, 0.0, 0.0), (0.0, -7200.0, 0.0), (0.0, -7200.0, -9000.0), (1.0, 1.0, 1.0)])
def test_the_clock_of_a_trainer_neither_hides_an_incident_nor_stops_the_detection(
    http: TestClient, clocks: tuple[float, ...]
) -> None:
    trainer = Trainer(http)
    for number, wrong_by in enumerate(clocks):
        first = 100 * number
        segment = trainer.open(f"k{number}", first, "resume" if number else "start", opened_at=NOW + wrong_by)
        trainer.report(segment, range(first, first + 100), {"loss": noise(number, 100)})
    trainer.report(segment, range(300, 340), {"loss": [math.nan] * 40})
    assert [incident["kind"] for incident in trainer.get("/incidents")] == ["nonfinite"]
    assert trainer.get()["newest_step"]["step"] == 339


def test_a_declared_change_in_the_replayed_stretch_is_no_incident_after_the_rollback(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    loss = [value + (0.5 if step >= 400 else 0.0) for step, value in enumerate(noise(4, 560))]
    checkpoints = list(range(0, 451, 50))
    event = {"key": "e1", "step": 400, "time": 1.0, "kind": "data_mix", "details": {}}
    trainer.report(segment, range(400), {"loss": loss[:400]}, restorable_steps=checkpoints)
    trainer.report(segment, range(400, 560), {"loss": loss[400:]}, events=[event])
    (order,) = trainer.report(segment, [560], {"loss": [float("nan")]})["orders"]
    assert order["rewind_to"] == 450
    segment = obey(trainer, order)
    trainer.report(segment, range(450, 800), {"loss": [value + 0.5 for value in noise(6, 350)]})
    assert len(trainer.get("/incidents")) == 1
    assert [one["state"] for one in trainer.get()["interventions"]] == ["verified"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"order": 99}, "order"),
        ({"fork_step": 2**52}, "fork_step"),
        ({"fork_step": 199}, "fork_step"),
        ({"fork_step": None}, "reason"),
        ({"reason": "resume"}, "reason"),
    ],
)
def test_a_segment_that_cannot_have_carried_out_its_order_is_refused(
    http: TestClient, change: dict[str, Any], where: str
) -> None:
    """With 409 and never with 404, which tells a trainer that the collector has lost the run."""
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"name": "palm"})
    (order,) = train_until_nan(trainer)["orders"]
    assert order["rewind_to"] == 200
    body = {"key": "b", "fork_step": 200, "reason": "rollback", "order": order["id"], "opened_at": NOW}
    refused = http.post(f"{API}/runs/r1/segments", json=body | change)
    assert (refused.status_code, refused.json()["where"]) == (409, ["body", where])
    assert [one["id"] for one in trainer.report(0, [], {})["orders"]] == [order["id"]]


def test_a_segment_does_not_name_the_order_of_another_run(http: TestClient) -> None:
    (order,) = train_until_nan(Trainer(http, "victim"))["orders"]
    train_until_nan(Trainer(http, "r1"))
    body = {"key": "b", "fork_step": 200, "reason": "rollback", "order": order["id"], "opened_at": NOW}
    refused = http.post(f"{API}/runs/r1/segments", json=body)
    assert (refused.status_code, refused.json()["detail"]) == (409, f"the run 'r1' has no order {order['id']}")


def test_one_segment_at_most_carries_out_an_order(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    number = trainer.open("b", 200, "rollback", order["id"])
    assert trainer.open("b", 200, "rollback", order["id"]) == number, "the same request may be sent again"
    body = {"key": "c", "fork_step": 200, "reason": "rollback", "order": order["id"], "opened_at": NOW}
    refused = http.post(f"{API}/runs/r1/segments", json=body)
    assert (refused.status_code, "segment 1 already" in refused.json()["detail"]) == (409, True)


def test_a_run_has_as_many_segments_as_the_settings_allow(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine, max_segments=2) as http:
        trainer = Trainer(http)
        for key in ("a", "b", "b", "a"):
            trainer.open(key)
        body = {"key": "c", "fork_step": 0, "reason": "rewind", "opened_at": NOW}
        refused = http.post(f"{API}/runs/r1/segments", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert "LOSSGUARD_MAX_SEGMENTS" in refused.json()["detail"]


@pytest.mark.slow
def test_opening_a_segment_reads_as_much_in_a_run_of_many_segments(http: TestClient, sqlite_engine: sa.Engine) -> None:
    """Rows read and statements run, so that the test does not depend on the machine."""
    statements: list[str] = []
    loaded: list[object] = []
    trainer = Trainer(http)

    def open_one(number: int) -> tuple[int, int]:
        statements.clear()
        loaded.clear()
        first = 300 * number  # the detection reads the last 250 steps again
        segment = trainer.open(f"k{number}", first, "rewind", opened_at=NOW + number)
        counted = (len(statements), len(loaded))
        trainer.report(segment, range(first, first + 300), {"loss": [3.0] * 300})
        return counted

    sa.event.listen(sqlite_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    sa.event.listen(Segment, "load", lambda segment, _: loaded.append(segment))
    trainer.report(trainer.open("k0"), range(300), {"loss": [3.0] * 300})
    counts = [open_one(number) for number in range(1, 21)]
    assert max(counts[10:]) <= max(counts[4:10]), counts
