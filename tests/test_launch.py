"""An unchanged script with a tracker, or one that only prints, a real launcher and a real collector: a planted fault
becomes an incident."""

import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import WarmProcesses
from tests.loop import Loop
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SPIKE_AT = 300


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with WarmProcesses(tmp_path / "logs") as processes:
        yield Loop(processes, tmp_path)


def losses(seed: int = 1) -> list[float]:
    """A run of 400 steps whose loss leaps at SPIKE_AT, and is NaN at the end."""
    noise = random.Random(seed)
    values = [round(3.0 + 2.0 / (1 + step / 50) + noise.gauss(0.0, 0.02), 4) for step in range(400)]
    for step in range(SPIKE_AT, SPIKE_AT + 8):
        values[step] += 4.0
    return [*values, math.nan]


LOGS = f"""
import time
from math import nan
from tensorboardX import SummaryWriter
with SummaryWriter("tb") as writer:
    for step, loss in enumerate({losses()}):
        writer.add_scalar("train/loss", loss, step)
        writer.add_scalar("train/grad_norm", 0.5, step)
    time.sleep(1.0)
"""
PRINTS = f"""
from math import nan
for step, loss in enumerate({losses()}):
    print(f"iter {{step}}: loss {{loss:.4f}}, time 13.86ms, mfu 26.88%")
"""


@pytest.mark.parametrize(
    "script", [pytest.param(LOGS, id="tracker", marks=pytest.mark.system), pytest.param(PRINTS, id="text")]
)
def test_a_spike_in_what_an_unchanged_script_logs_or_prints_is_an_incident(loop: Loop, script: str) -> None:
    if script == LOGS:
        pytest.importorskip("tensorboardX")
    loop.start_collector()
    (loop.folder / "train.py").write_text(script)
    ours = {"LOSSGUARD_URL": loop.url, "LOSSGUARD_DIR": str(loop.folder / "spools"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lossguard", "launch", "--run-id", "r", "--", sys.executable, "train.py"]
    subprocess.run(command, cwd=loop.folder, env=os.environ | ours, check=True, timeout=200)
    run = wait_for(loop.ask, seconds=60, what="the run")
    assert (run["state"], run["newest_step"]["step"]) == ("finished", 400)
    incidents = wait_for(lambda: loop.ask("/incidents"), seconds=60, what="an incident")
    kinds = {incident["kind"]: incident["onset_step"] for incident in incidents}
    assert kinds["loss_spike"] == SPIKE_AT
    assert kinds["nonfinite"] == 400
