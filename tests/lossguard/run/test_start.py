"""lossguard.init: what it accepts, and what it records about the run."""

import fcntl
import math
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lossguard
from lossguard.run import start
from lossguard.run.start import wait_for_lease
from lossguard.spool.spool import spools_in
from lossguard.spool.writer import Writer
from tests.lossguard.collectors import Answer, FakeCollector
from tests.lossguard.delivery.runs import online, with_heartbeat
from tests.lossguard.recorded import offline, records
from tests.waiting import eventually, pause


def test_a_run_describes_itself_first(tmp_path: Path) -> None:
    with offline(tmp_path, name="first", config={"lr": 1e-3, "bad": math.nan, "path": tmp_path}, total_steps=9) as run:
        first = records(run)[0]["run"]
    assert (first["id"], first["name"], first["project"], first["total_steps"]) == (run.id, "first", "project", 9)
    assert first["config"] == {"lr": 1e-3, "bad": "NaN", "path": str(tmp_path)}
    assert first["versions"]["python"]


def test_the_configuration_may_be_a_namespace(tmp_path: Path) -> None:
    with offline(tmp_path, config=types.SimpleNamespace(lr=0.1)) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1}
    with pytest.raises(ValueError, match="config="):
        offline(tmp_path, config=3)


def test_tags_are_part_of_the_configuration(tmp_path: Path) -> None:
    with offline(tmp_path, config={"lr": 0.1}, tags=["sweep 3", "baseline", "sweep 3"]) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1, "tags": ["sweep 3", "baseline"]}
    with offline(tmp_path, config={"tags": ["mine"]}) as run:
        assert records(run)[0]["run"]["config"] == {"tags": ["mine"]}


@pytest.mark.parametrize("tags", ["one", [1], [""], ["a\n"], ["x"] * 33])
def test_tags_that_are_no_list_of_words_are_refused(tmp_path: Path, tags: Any) -> None:
    with pytest.raises(ValueError, match="must be a list of at most 32 texts"):
        offline(tmp_path, tags=tags)
    with pytest.raises(ValueError, match="use only one of them"):
        offline(tmp_path, tags=["a"], config={"tags": ["b"]})


ITSELF: dict[str, Any] = {}
ITSELF["self"] = ITSELF


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"config": ITSELF}, "contains itself"),
        ({"config": {"text": "x" * (5 << 20)}}, "takes 5242892 bytes"),
        ({"config": {"values": [0] * 20_000}}, "20000 values"),
        ({"config": {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}, "16 levels"),
        ({"mode": "online"}, "LOSSGUARD_URL"),
        ({"url": "collector:8000"}, "url='collector:8000' is not the address of a collector"),
        *(({"project": project}, "project=") for project in ("", "  ", "x" * 200, "a\tb", "\ud800")),
        ({"project": "ж" * 60}, "takes 360 bytes as the name of a folder"),
        *(({"run_id": run_id}, "run_id=") for run_id in ("../x", "a/b", ".hidden", "x" * 129)),
        *(({"name": name}, "name=") for name in ("x" * 257, 5, "\ud800")),
        *(({"total_steps": number}, "total_steps=") for number in (-5, 1.5)),
        *(({"policy": policy}, "policy=") for policy in ("auto", [("mode", "auto")])),
    ],
)
def test_what_a_collector_would_refuse_is_one_sentence_before_the_first_step(
    tmp_path: Path, wrong: dict[str, Any], why: str
) -> None:
    with pytest.raises(lossguard.ConfigurationError, match=why):
        lossguard.init(**{"project": "p", "directory": tmp_path, **wrong})
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(lossguard.ConfigurationError, match="cannot be written"):
        lossguard.init("p", directory=tmp_path / "file")


def test_a_project_with_slashes_and_dots_stays_below_the_directory(tmp_path: Path) -> None:
    for project in ("a/b", "..", "."):
        run = lossguard.init(project, directory=tmp_path)
        assert run.directory is not None
        assert run.directory.parent.parent == tmp_path
        run.finish()


def test_a_folder_that_another_process_uses_is_one_sentence_and_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
    assert run.directory is not None
    files = sorted(run.directory.iterdir())
    monkeypatch.setenv("LOSSGUARD_LOCK_WAIT", "0")
    with (run.directory / "lock").open("rb") as file:  # another open file is as another process
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(lossguard.ConfigurationError, match=r"is in use by process .* or use another run_id"):
            offline(tmp_path, run_id="r")
    assert sorted(run.directory.iterdir()) == files
    with offline(tmp_path, run_id="r") as run:
        assert run.history.num_segments == 1


def test_a_run_that_has_ended_leaves_its_folder_to_other_processes(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        pass
    assert run.directory is not None
    with (run.directory / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


IN_USE = "process 7@node-1 writes the run 'r', and its lease ends in 20 s"
ME = Writer(id="a" * 32, session="1", process="1@host")


@pytest.mark.slow
def test_a_process_waits_for_the_one_that_ends(collector: FakeCollector) -> None:
    answers: Iterator[Answer] = iter([(409, {"detail": IN_USE}), (409, {"detail": IN_USE}), (200, {"lease": 20.0})])
    collector.fault = lambda _method, _path, _body: next(answers)
    began = time.monotonic()
    wait_for_lease(lossguard.Client(collector.url), "r", ME, wait=600.0)
    assert 1.0 < time.monotonic() - began < 300.0
    assert len(collector.requests) == 3, "it waits no longer than the other process has the lease"


def test_a_new_run_an_older_collector_and_one_that_is_down_are_no_obstacle(collector: FakeCollector) -> None:
    for url in (collector.url, "http://127.0.0.1:9"):
        began = time.monotonic()
        wait_for_lease(lossguard.Client(url), "r", ME, wait=600.0)
        assert time.monotonic() - began < 300.0


def test_a_run_with_a_new_id_asks_nothing_and_an_old_folder_asks_before_it_starts_again(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may have gone on in another folder meanwhile."""
    lossguard.init("project", url=collector.url, directory=tmp_path).finish()
    assert not [path for _, path, _ in collector.requests if path.endswith("/lease")]
    with online(collector, tmp_path, "known") as run:
        run.log(0, loss=1.0)
    collector.requests.clear()
    with online(collector, tmp_path, "known") as run:
        assert len(spools_in(Path(str(run.directory)))) == 2
    assert collector.requests[0][1].endswith("/known/lease")
    monkeypatch.setenv("LOSSGUARD_LOCK_WAIT", "0")
    monkeypatch.setattr(start, "ASK_TIMEOUT", 60.0)
    collector.fault = lambda _method, path, _body: (409, {"detail": IN_USE}) if path.endswith("/lease") else None
    collector.requests.clear()
    for folder in (tmp_path, tmp_path / "another"):
        with pytest.raises(lossguard.ConfigurationError, match=IN_USE):
            online(collector, folder, "known")
    assert {path.rpartition("/")[2] for _, path, _ in collector.requests} == {"lease"}
    assert len(list(tmp_path.rglob("known/*.spool"))) == 2


def answer_with_lease(collector: FakeCollector) -> dict[str, Any]:
    """Reports are answered with what is returned, which a test may change: another process has the lease."""
    lease: dict[str, Any] = {"lease": 0.0, "orders": [], "writer": "7@node-1"}
    collector.fault = lambda _method, path, body: (
        (200, {"accepted": len(body["steps"]), **lease}) if path.endswith("/reports") else None
    )
    return lease


@pytest.mark.slow
def test_orders_are_carried_out_only_while_the_lease_is_valid(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease = answer_with_lease(collector)
    with with_heartbeat(collector, tmp_path, 600.0) as run:  # no other answer renews the lease
        run.log(0, loss=1.0)
        assert eventually(lambda: "7@node-1 writes the run 'r' too: this process carries out no orders" in caplog.text)
        order = {"id": 1, "key": "k1", "kind": "rollback", "rewind_to": 0}
        lease |= {"lease": 0.5, "orders": [order]}
        run.log(1, loss=1.0)
        assert eventually(lambda: bool(run.inbox.orders))
        pause(0.6)
        assert run.take_order() is None
        lease |= {"lease": 3600.0}
        run.log(2, loss=1.0)
        taken = eventually(run.take_order)
        assert isinstance(taken, lossguard.Order)
        assert run.revoked(taken) is None
        run.inbox.receive([taken], time.monotonic())  # as after a stall
        assert run.revoked(taken) == "the lease of the run ran out meanwhile"
        run.give_back(taken)
        run.inbox.receive([taken])
        assert run.take_order() == taken, "it is still open, and this process has the lease again"


@pytest.mark.slow
def test_what_was_said_without_the_lease_is_said_again_once_this_process_holds_it(
    collector: FakeCollector, tmp_path: Path
) -> None:
    """A collector takes capabilities and restorable steps from the holder of the lease alone."""
    lease = answer_with_lease(collector)
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
