"""deploy/slurm/train.sbatch under stand-ins for the commands of Slurm: a stopped run continues in the requeued job."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lossguard import Client, CollectorError
from lossguard.guard.restart_plan import EXIT_CODE
from tests.deploy.files import DEPLOY
from tests.fork_server import WarmProcesses
from tests.loop import Loop, small_settings
from tests.waiting import wait_for

pytestmark = pytest.mark.system

SCRIPT = DEPLOY / "slurm" / "train.sbatch"
COMMANDS = {
    "srun": 'shift; echo "$@" >> srun.log; echo $$ > srun.pid; exec "$@"',  # the first argument is its only option
    "scancel": 'echo "$@" >> scancel.log; kill -TERM $(cat srun.pid)',  # the step, not the script
    "scontrol": """case "$1 $2" in
        "show hostnames") printf "node-1\\nnode-2\\n" ;;
        "show job") echo "   SuspendTime=None PreemptTime=${PREEMPTED:-None}" ;;
        *) echo "$@" >> scontrol.log ;;
    esac""",
    "python": f'exec {sys.executable} "$@"',
    "torchrun": "exit 0",
    "lossguard": "exit 0",
}
"""Of a job in its folder. `sbatch` is `Job.start`."""
LOGS_TWENTY_STEPS = """
import lossguard, sys
run = lossguard.init("array", config={"seed": int(sys.argv[1])})
for step in range(20):
    run.log(step, loss=2.0)
run.finish()
"""


class Job:
    """The script with the environment that Slurm gives it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        commands = folder / "bin"
        commands.mkdir(parents=True)
        for name, body in COMMANDS.items():
            (commands / name).write_text(f"#!/bin/sh\n{body}\n")
            (commands / name).chmod(0o755)
        (folder / "task.py").write_text(LOGS_TWENTY_STEPS)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LOSSGUARD_", "SLURM_"))},
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(DEPLOY.parent),
            "LOSSGUARD_URL": url,
            "OMP_NUM_THREADS": "1",
            "SLURM_CLUSTER_NAME": "one",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_SUBMIT_DIR": str(folder),
        }

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment | more,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """A job whose test has failed does not outlive it."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
            process.communicate()

    def log(self, command: str) -> list[str]:
        file = self.folder / f"{command}.log"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with WarmProcesses(tmp_path / "logs") as processes:
        yield Loop(processes, tmp_path)


@pytest.fixture
def job(loop: Loop) -> Iterator[Job]:
    job = Job(loop.folder / "job", loop.url)
    yield job
    job.end()


def test_a_job_that_is_stopped_is_requeued_and_the_same_run_continues(loop: Loop, job: Job) -> None:
    loop.start_collector()
    train = ["-m", "trainer", "run", "--recipe", "tiny", "--steps", "300", *small_settings()]

    def run() -> Any:
        try:
            with Client(loop.url) as client:
                return client.get("/runs/slurm-one-7")
        except CollectorError:
            return None  # it has not begun

    first = job.start(*train)
    wait_for(lambda: (found := run()) and (found["newest_step"] or {}).get("step", 0) > 30, seconds=90, what="steps")
    first.send_signal(signal.SIGTERM)  # as Slurm does with --signal=B:TERM
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert job.log("scancel") == ["--signal=TERM 7"]
    assert job.log("scontrol") == ["requeue 7"]
    assert run()["state"] == "interrupted"

    again = job.start(*train, SLURM_RESTART_COUNT="1")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert job.log("scontrol") == ["requeue 7"]
    found = run()
    assert (found["state"], found["newest_step"]["step"]) == ("finished", 299)
    segments = found["segments"]
    assert len(segments) == 2
    assert segments[1]["fork_step"] == segments[0]["num_steps"]
    assert sum(one["num_steps"] for one in segments) == 300


def test_each_task_of_an_array_is_a_run(loop: Loop, job: Job) -> None:
    loop.start_collector()
    tasks = [
        job.start("task.py", "%a", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(task), SLURM_JOB_ID=str(7 + task))
        for task in range(3)
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=120)
        assert task.returncode == 0, errors
    with Client(loop.url) as client:
        runs = {one["id"]: client.get(f"/runs/{one['id']}") for one in client.get("/runs")}
    seeds = {name: run["config"]["seed"] for name, run in runs.items()}
    assert seeds == {f"slurm-one-7-{task}": task for task in range(3)}
    assert all(run["newest_step"]["step"] == 19 for run in runs.values())


def run_to_end(job: Job, *arguments: str, **more: str) -> tuple[int, str]:
    process = job.start(*arguments, **more)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_a_failure_is_not_requeued_and_restarts_are_bounded(job: Job) -> None:
    code, errors = run_to_end(job, "-c", "raise SystemExit(3)")
    assert (code, job.log("scontrol")) == (3, [])
    assert "run slurm-one-7 failed with exit code 3" in errors
    code, errors = run_to_end(job, "-c", "raise SystemExit(1)", PREEMPTED="2026-11-27T04:52:36")
    assert (code, job.log("scontrol")) == (1, []), "Slurm requeues what it preempts"
    assert "was preempted" in errors
    assert run_to_end(job, "-c", "raise SystemExit(143)")[0] == 0, "somebody signalled the step"
    assert job.log("scontrol") == ["requeue 7"]
    assert run_to_end(job, "-c", f"raise SystemExit({EXIT_CODE})")[0] == 0, "it rolls back by a restart"
    assert job.log("scontrol") == ["requeue 7"] * 2
    code, errors = run_to_end(job, "-c", "raise SystemExit(143)", SLURM_RESTART_COUNT="5", MAX_RESTARTS="5")
    assert (code, job.log("scontrol")) == (1, ["requeue 7"] * 2)
    assert "was restarted 5 times" in errors


def test_a_loop_that_ends_well_after_the_signal_is_requeued_too(job: Job) -> None:
    """A guard ends the loop between two steps, and a script that ends there has exit code 0."""
    ends_well = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit())\nopen('begun', 'w')\nsignal.pause()"
    process = job.start("-c", ends_well)
    wait_for((job.folder / "begun").exists, seconds=60, what="the loop")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert job.log("scontrol") == ["requeue 7"]


def test_several_nodes_meet_and_any_command_is_launched(job: Job) -> None:
    more = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node-[1-2]", "PROCESSES_PER_NODE": "8"}
    assert run_to_end(job, "train.py", "--lr", "3e-4", **more)[0] == 0
    more = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert run_to_end(job, "lossguard", "launch", "--", "python", "train.py", "--seed", "%a", **more)[0] == 0
    torchrun, launch = job.log("srun")
    assert torchrun == (
        "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-id=7-0 --rdzv-endpoint=node-1:20007 "
        "train.py --lr 3e-4"
    )
    assert launch == "lossguard launch -- python train.py --seed 2"


def test_the_script_asks_slurm_for_what_it_relies_on() -> None:
    options = set(re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), re.MULTILINE))
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1", "--signal=B:TERM@180"} <= options
