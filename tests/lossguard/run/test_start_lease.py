"""A process that resumes a run in a new folder asks who writes the run."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lossguard
from lossguard.run.start import wait_for_lease
from lossguard.spool.spool import spools_in
from lossguard.spool.writer import Writer, new_writer_id
from tests.lossguard.collectors import Answer, FakeCollector
from tests.lossguard.delivery.runs import online, with_heartbeat
from tests.waiting import eventually

IN_USE = "process 7@node-1 writes the run 'r', and its lease ends in 20 s"
ME = Writer(id=new_writer_id(), session="1", process="1@host")


def test_a_run_that_another_process_writes_is_not_resumed_and_nothing_is_touched(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_LOCK_WAIT", "0")
    collector.fault = lambda _method, path, _body: (409, {"detail": IN_USE}) if path.endswith("/lease") else None
    with pytest.raises(lossguard.ConfigurationError, match=IN_USE):
        online(collector, tmp_path)
    assert {path.rpartition("/")[2] for _, path, _ in collector.requests} == {"lease"}
    assert list(tmp_path.rglob("*.spool")) == []


@pytest.mark.slow
def test_a_process_waits_for_the_one_that_ends(collector: FakeCollector) -> None:
    answers: Iterator[Answer] = iter([(409, {"detail": IN_USE}), (409, {"detail": IN_USE}), (200, {"lease": 20.0})])
    collector.fault = lambda _method, _path, _body: next(answers)
    began = time.monotonic()
    wait_for_lease(lossguard.Client(collector.url), "r", ME, wait=600.0)
    assert 1.0 < time.monotonic() - began < 20.0
    assert len(collector.requests) == 3, "it waits no longer than the other process has the lease"


def test_a_new_run_an_older_collector_and_one_that_is_down_are_no_obstacle(collector: FakeCollector) -> None:
    for url in (collector.url, "http://127.0.0.1:9"):
        began = time.monotonic()
        wait_for_lease(lossguard.Client(url), "r", ME, wait=600.0)
        assert time.monotonic() - began < 5.0


def test_a_run_with_a_folder_here_and_a_run_with_a_new_id_ask_nothing(collector: FakeCollector, tmp_path: Path) -> None:
    with online(collector, tmp_path, "known") as run:
        run.log(0, loss=1.0)
    collector.requests.clear()
    with online(collector, tmp_path, "known") as run:
        assert len(spools_in(Path(str(run.directory)))) == 2
    lossguard.init("project", url=collector.url, directory=tmp_path).finish()
    assert not [path for _, path, _ in collector.requests if path.endswith("/lease")]


@pytest.mark.slow
def test_orders_are_carried_out_only_while_the_lease_is_valid(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease = {"lease": 0.0, "orders": [], "writer": "7@node-1"}

    def fault(_method: str, path: str, body: dict[str, Any]) -> Answer | None:
        return (200, {"accepted": len(body["steps"]), **lease}) if path.endswith("/reports") else None

    collector.fault = fault
    with with_heartbeat(collector, tmp_path, 600.0) as run:  # no other answer renews the lease
        run.log(0, loss=1.0)
        assert eventually(lambda: "7@node-1 writes the run 'r' too: this process carries out no orders" in caplog.text)
        order = {"id": 1, "kind": "rollback", "rewind_to": 0}
        lease |= {"lease": 0.5, "orders": [order]}
        run.log(1, loss=1.0)
        assert eventually(lambda: bool(run._inbox))
        time.sleep(0.6)
        assert run.take_order() is None
        lease |= {"lease": 20.0}
        run.log(2, loss=1.0)
        assert eventually(run.take_order)


@pytest.mark.slow
def test_what_was_said_without_the_lease_is_said_again_once_this_process_holds_it(
    collector: FakeCollector, tmp_path: Path
) -> None:
    """A collector takes capabilities and restorable steps from the holder of the lease alone."""
    lease = {"lease": 0.0, "orders": [], "writer": "7@node-1"}
    collector.fault = lambda _method, path, body: (
        (200, {"accepted": len(body["steps"]), **lease}) if path.endswith("/reports") else None
    )
    with online(collector, tmp_path) as run:
        run.can_roll_back()
        run.set_restorable([0])
        run.log(0, loss=1.0)
        run.set_restorable([0, 50])
        assert eventually(lambda: any(body.get("restorable_steps") == [0, 50] for _, _, body in collector.requests))
        num_before = len(collector.requests)
        lease |= {"lease": 20.0}
        run.log(1, loss=1.0)
        assert eventually(lambda: any("restorable_steps" in body for _, _, body in collector.requests[num_before:]))
        again = [(path.rpartition("/")[2], body) for _, path, body in collector.requests[num_before:]]
        assert [body["capabilities"] for name, body in again if name == "runs"] == [["rollback"]]
        assert [body["restorable_steps"] for name, body in again if "restorable_steps" in body] == [[0, 50]]
