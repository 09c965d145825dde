import math
import random
import socket
import sys
from pathlib import Path

import pytest

import lossguard
from tests.lossguard.scripted import Indices, Memory
from tests.ports import free_port
from tests.waiting import eventually
from trainer.drill import collector
from trainer.drill.collector import MAX_STARTS, release_holds, run_collector
from trainer.errors import UsageError


@pytest.mark.slow
def test_a_held_run_is_released_without_an_operator(tmp_path: Path) -> None:
    """A run without a checkpoint can only be held. Were nobody there, it would wait for ever."""
    checkpoints, noise = Memory([]), random.Random(0)
    checkpoints.full = True
    with run_collector(tmp_path) as client:
        run = lossguard.init("p", run_id="r", mode="online", url=client.url, directory=tmp_path)
        with run, release_holds(client, "r"):
            for step, _ in lossguard.Guard(run, checkpoints=checkpoints).steps(Indices(), 300):
                run.log(step, loss=math.nan if step == 150 else 2.0 + noise.gauss(0, 0.02), grad_norm=1.0)
                if step == 200:  # or the run ends before an order can reach it
                    assert eventually(lambda: bool(run.inbox.orders))  # type: ignore[attr-defined]
        orders = client.get("/runs/r")["orders"]
    assert {"hold", "release"} <= {order["kind"] for order in orders}
    assert {order["state"] for order in orders} == {"applied"}


def test_a_collector_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="collector did not start: its log is empty"), run_collector(tmp_path):
        pass


@pytest.mark.slow
def test_a_collector_starts_on_another_port_if_the_first_one_was_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, free = free_port(), free_port()
    ports = iter([taken, free])
    monkeypatch.setattr(collector, "_free_port", lambda: next(ports))
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        with run_collector(tmp_path) as client:
            assert client.url == f"http://127.0.0.1:{free}"


@pytest.mark.parametrize(("error", "num_starts"), [("Address already in use", MAX_STARTS), ("No space left", 1)])
def test_only_a_collector_whose_port_is_taken_starts_again_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, num_starts: int
) -> None:
    program, starts = tmp_path / "collector", tmp_path / "starts"
    program.write_text(f"#!/bin/sh\necho started >> {starts}\necho 'monitor: {error}' >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UsageError, match=f"collector did not start: monitor: {error}"), run_collector(tmp_path):
        pass
    assert starts.read_text().count("started") == num_starts
