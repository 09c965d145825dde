import math
import random
import sys
from pathlib import Path

import pytest

import lossguard
from tests.lossguard.scripted import Indices, Memory
from tests.waiting import eventually
from trainer.drill.collector import release_holds, run_collector
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
