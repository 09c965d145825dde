import math
import random
import sys
import time
from pathlib import Path

import pytest

import lossguard
from tests.lossguard.test_guard import Indices, Memory
from trainer.drill.collector import ask, collector, releasing
from trainer.errors import UserMistake


@pytest.mark.slow
def test_a_run_that_is_held_is_released_by_who_stands_for_the_person(tmp_path: Path) -> None:
    """A run without a checkpoint can only be held. Were nobody there, it would wait for ever."""
    checkpoints, noise = Memory([]), random.Random(0)
    checkpoints.full = True
    with collector(tmp_path) as url:
        run = lossguard.init("p", run_id="r", mode="online", url=url, directory=tmp_path)
        with run, releasing(url, "r"):
            for step, _ in lossguard.Guard(run, checkpoints=checkpoints).steps(Indices(), 300):
                run.log(step, loss=math.nan if step == 150 else 2.0 + noise.gauss(0, 0.02), grad_norm=1.0)
                time.sleep(0.01)
        orders = ask(url, "/runs/r")["orders"]
    assert {"hold", "release"} <= {order["kind"] for order in orders}
    assert {order["state"] for order in orders} == {"applied"}


def test_a_collector_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserMistake, match="collector did not start: it said nothing"), collector(tmp_path):
        pass
