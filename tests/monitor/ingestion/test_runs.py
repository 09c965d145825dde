"""Runs are registered, many at once too, up to a limit."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
import urllib3

from lossguard.vocabulary.protocol import API
from tests.dashboard.serving import serving
from tests.monitor.client import NOW, TestClient, Trainer, collector, writer


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
        assert time.monotonic() - start < 20


def test_a_run_id_belongs_to_the_project_that_used_it_first(http: TestClient) -> None:
    Trainer(http, "r1", project="gpt", writer=writer("a"))
    body = {"id": "r1", "project": "bert", "capabilities": [], "started_at": NOW}
    refused = http.post(f"{API}/runs", json=body)
    assert (refused.status_code, refused.json()["where"]) == (409, ["body", "id"])
    assert "choose another run id" in refused.json()["detail"]
    assert Trainer(http, "r1", project="gpt").get()["capabilities"] == ["rollback"]
