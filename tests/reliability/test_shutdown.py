"""SIGTERM: reports in flight are answered and stored, new requests are refused, and the log is complete."""

import json
import re
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import urllib3

from lossguard.vocabulary.protocol import API
from tests.reliability.collector import CollectorProcess, Trainer, reports
from tests.waiting import eventually, pause, wait_for


@pytest.mark.slow
def test_a_report_in_flight_is_finished_before_the_collector_exits(tmp_path: Path) -> None:
    """The report is slow because another process holds the store's lock."""
    store, log = tmp_path / "store.db", tmp_path / "log"
    collector = CollectorProcess(f"sqlite:///{store}", log, LOSSGUARD_LOG_FORMAT="json")
    collector.start()
    collector.wait_until_up()
    http = urllib3.PoolManager(retries=False, timeout=120.0)
    trainer = Trainer([collector.url], "slow", patience=0.0, http=http)
    (body,) = reports(trainer.open("a"), 0, 10, 10, seed=1)
    answers: list[dict[str, Any]] = []
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    sender = threading.Thread(target=lambda: answers.append(trainer.report(body)))
    sender.start()
    wait_for(lambda: _num_in_progress(collector.url) == 2, seconds=60, what="the report arrives, beside our question")
    pause(0.3)  # so long it waits for the lock at least
    stopper = threading.Thread(target=lambda: codes.append(collector.stop()))
    codes: list[int] = []
    stopper.start()
    assert eventually(lambda: _refuses_requests(collector.url)), "the collector still accepts requests"
    assert answers == []
    holder.execute("ROLLBACK")
    holder.close()
    sender.join(60)
    stopper.join(60)
    assert answers == [{"accepted": 10, "duplicates": 0, "orders": []}]
    assert codes[0] in (0, -signal.SIGTERM)  # uvicorn raises the signal again after its shutdown
    with sqlite3.connect(store) as reader:
        assert reader.execute("SELECT count(*) FROM steps").fetchone() == (10,)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    requests = [line for line in lines if "route" in line]  # the leader's line may follow once the lock is free
    assert (requests[-1]["route"], requests[-1]["status"]) == (f"{API}/runs/{{run_id}}/reports", 200)
    assert requests[-1]["ms"] > 300


def _num_in_progress(url: str) -> float:
    metrics = urllib3.request("GET", f"{url}/metrics", retries=False, timeout=20.0).data.decode()
    (value,) = re.findall(r"^lossguard_requests_in_progress (.*)$", metrics, re.MULTILINE)
    return float(value)


def _refuses_requests(url: str) -> bool:
    try:
        urllib3.request("GET", f"{url}/healthz", retries=False, timeout=2.0)
    except urllib3.exceptions.HTTPError:
        return True
    return False
