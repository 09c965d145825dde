"""The reference trainer under torchrun, with real processes."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import WarmProcesses
from tests.loop import Loop, small_settings, wait_while_it_runs
from tests.ranks.launch import TORCHRUN
from tests.trainer.small import logged

pytestmark = pytest.mark.slow(15)

LEFT = re.compile(r"rank 1 \(process \d+\) left, and the others cannot go on")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with WarmProcesses(tmp_path / "logs") as processes:
        yield Loop(processes, tmp_path)


def start(loop: Loop, *arguments: str, torchrun: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    trainer = ["-m", "trainer", "run", "--out", str(loop.folder / "out"), *small_settings(), *arguments]
    launcher = [*TORCHRUN[1:], "--nproc-per-node=2", *torchrun]
    return loop.processes.start("trainer", *launcher, *trainer, environment={"OMP_NUM_THREADS": "1"})


def test_a_nan_in_the_gradient_of_one_rank_is_rolled_back_on_all_of_them(loop: Loop) -> None:
    num_steps = 430  # the order comes while the training goes on, also on a busy machine
    loop.start_collector()
    trainer = start(loop, "--run-id=r", f"--steps={num_steps}", "--url", loop.url, "--fault=nan_gradient@130")
    assert trainer.wait(240) == 0, loop.log("trainer")
    run = loop.ask()
    (order,) = run["orders"]
    assert (order["state"], order["rewound_to"]) == ("applied", 115), "of the memory, which holds every fifth step"
    assert [one["state"] for one in run["interventions"]] == ["verified"]
    assert [one["reason"] for one in run["segments"]] == ["start", "rollback"]
    series = loop.ask("/series?metric=grad_norm&points=5000")
    assert series["first_step"] == list(range(num_steps))
    assert not any(series["non_finite"])
    discarded = loop.ask("/series?metric=grad_norm&segment=0&points=5000")
    assert [bool(count) for count in discarded["non_finite"]].index(True) == 130
    assert loop.log("trainer").count("rolled back ") == 1


@pytest.mark.system
def test_a_rank_that_is_killed_takes_the_job_down_and_the_restart_continues_the_run(loop: Loop) -> None:
    """No run id is given: the launch keeps its run."""
    trainer = start(
        loop,
        "--steps=110",
        "--set=log_every=10",
        "--set=parallel=fsdp",
        "--mode=offline",
        torchrun=("--max-restarts=1", "--monitor-interval=0.1"),
    )
    wait_while_it_runs(trainer, lambda: "step  40/110" in loop.log("trainer"))
    os.kill(trainer.pid, signal.SIGSTOP)  # it would end rank 0 before that can say why
    os.kill(process_of(rank=1, torchrun=trainer.pid), signal.SIGKILL)
    wait_while_it_runs(trainer, lambda: LEFT.search(loop.log("trainer")) is not None)
    os.kill(trainer.pid, signal.SIGCONT)
    assert trainer.wait(120) == 0, loop.log("trainer")
    log = loop.log("trainer")
    assert "Traceback" not in log
    assert re.search(r"resumed from the checkpoint of step (25|50|75)", log)
    (folder,) = {path.parent for path in (loop.folder / "out").rglob("*.spool")}
    assert list(logged(loop.folder / "out", folder.name)) == list(range(110))


def process_of(rank: int, torchrun: int) -> int:
    """Of the processes that torchrun started, the one with this rank."""
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise LookupError(f"torchrun has no process of rank {rank}")
