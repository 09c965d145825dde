"""Two processes of one run: an order is carried out once, and no process overwrites what the other one writes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lossguard import Client, CollectorError, Conflict
from tests.reliability.collector import CollectorProcess
from tests.waiting import wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LEASE_SECONDS = 5.0


class Job:
    """A trainer process of the run `r`, in a folder of its own or in that of another job."""

    def __init__(self, collector: CollectorProcess, folder: Path, name: str, *, wait: float = 60.0) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self._log = folder / f"{name}.log"
        folder.mkdir(exist_ok=True)
        environment = os.environ | {
            "LOSSGUARD_URL": collector.url,
            "LOSSGUARD_DIR": str(folder / "spools"),
            "LOSSGUARD_RUN_ID": "r",
            "LOSSGUARD_LOCK_WAIT": str(wait),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "tests.reliability.small_trainer", str(self.checkpoints)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def num_rollbacks(self) -> int:
        return self.log.count("rolled back ")

    def files(self) -> dict[str, int]:
        """Every spool and every checkpoint, with its inode: a file that was replaced has another one."""
        found = {}
        for path in [*self.spools(), *self.checkpoints.glob("step-*/manifest.json")]:
            with suppress(FileNotFoundError):  # the process deletes old checkpoints meanwhile
                found[str(path)] = path.stat().st_ino
        return found

    def saved(self) -> set[int]:
        """The steps of its checkpoints."""
        return {int(path.name.removeprefix("step-")) for path in self.checkpoints.glob("step-*")}

    def spools(self) -> set[Path]:
        """Not of the whole folder: below `checkpoints` the process renames folders meanwhile."""
        return set((self.folder / "spools").rglob("*.spool"))


class Jobs:
    """Starts jobs, asks the collector, and ends what was started."""

    def __init__(self, collector: CollectorProcess, folder: Path) -> None:
        self.collector, self.folder = collector, folder
        self.started: list[Job] = []

    def start(self, folder: str, name: str, *, wait: float = 60.0) -> Job:
        job = Job(self.collector, self.folder / folder, name, wait=wait)
        self.started.append(job)
        return job

    def run(self) -> dict[str, Any]:
        with Client(self.collector.url) as client:
            try:
                found: dict[str, Any] = client.get("/runs/r")
            except CollectorError:
                return {"segments": [], "orders": [], "restorable_steps": [], "newest_step": None}
            return found

    def restorable(self) -> list[int]:
        steps: list[int] = self.run()["restorable_steps"]
        return steps

    def wait_until_it_can_roll_back(self, job: Job | None = None) -> None:
        """`job`: to checkpoints that this one has, and not only another one, which has ended."""

        def knows_checkpoints() -> bool:
            steps = self.restorable()
            return len(steps) >= 3 and (job is None or set(steps[-2:]) <= job.saved())

        wait_for(knows_checkpoints, seconds=120, what="checkpoints")

    def roll_back(self) -> dict[str, Any]:
        """Order a rollback; returns the order once it has been answered."""
        wait_for(self._order, seconds=120, what="an order that the collector can give")
        return wait_for(
            lambda: next((one for one in self.run()["orders"][-1:] if one["state"] != "open"), None),
            seconds=120,
            what="the answer to the order",
        )

    def _order(self) -> bool:
        with Client(self.collector.url) as client:
            try:
                client.request("POST", "/runs/r/rollback", {"rewind_to": self.restorable()[-2]})
            except Conflict:  # the list has just become that of the other folder
                return False
        return True

    def segments_of(self, order: dict[str, Any]) -> list[int]:
        return [one["number"] for one in self.run()["segments"] if one["order_id"] == order["id"]]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    url = f"sqlite:///{tmp_path}/store.db"
    collector = CollectorProcess(url, tmp_path / "collector.log", LOSSGUARD_LEASE_SECONDS=str(LEASE_SECONDS))
    jobs = Jobs(collector, tmp_path)
    try:
        yield jobs
    finally:
        for job in jobs.started:
            job.process.kill()
            job.process.wait(30)
        if collector._process is not None:
            collector.stop()


def test_a_second_process_in_the_same_folder_stops_before_it_touches_anything_and_a_requeued_one_waits(
    jobs: Jobs,
) -> None:
    jobs.collector.start()
    jobs.collector.wait_until_up()
    first = jobs.start("shared", "first")
    jobs.wait_until_it_can_roll_back()
    spools = first.spools()
    second = jobs.start("shared", "second", wait=1.0)
    requeued = jobs.start("shared", "requeued", wait=120.0)
    assert second.process.wait(120) == 3
    assert f"is in use by process {first.process.pid} on " in second.log
    wait_for(
        lambda: f"waiting up to 120 s for process {first.process.pid}" in requeued.log, seconds=120, what="waiting"
    )

    order = jobs.roll_back()
    assert (order["state"], len(jobs.segments_of(order))) == ("applied", 1)
    assert (first.num_rollbacks, second.num_rollbacks, requeued.num_rollbacks) == (1, 0, 0)
    assert first.spools() == spools, "nobody else has begun a spool"
    assert [one["reason"] for one in jobs.run()["segments"]] == ["start", "rollback"]

    first.process.terminate()
    assert first.process.wait(120) == 0
    kept = first.files()
    wait_for(lambda: "resumed from the checkpoint" in requeued.log, seconds=120, what="the requeued job")
    second_order = jobs.roll_back()
    assert (second_order["state"], len(jobs.segments_of(second_order))) == ("applied", 1)
    assert (first.num_rollbacks, requeued.num_rollbacks) == (1, 1)
    oldest = min(path for path in kept if path.endswith("manifest.json"))
    assert requeued.files()[oldest] == kept[oldest], "a checkpoint of the first process was overwritten"


def test_a_process_in_another_folder_stops_while_the_first_reports_and_takes_over_when_it_is_dead(jobs: Jobs) -> None:
    jobs.collector.start()
    jobs.collector.wait_until_up()
    first = jobs.start("node-1", "first")
    jobs.wait_until_it_can_roll_back()
    second = jobs.start("node-2", "second", wait=1.0)
    assert second.process.wait(120) == 3
    assert f"process {first.process.pid}@" in second.log
    assert "python -m monitor lease end r" in second.log
    assert second.files() == {}
    assert len(jobs.run()["segments"]) == 1

    requeued = jobs.start("node-2", "requeued")
    wait_for(lambda: "waiting up to 60 s" in requeued.log, seconds=120, what="waiting")
    first.process.kill()
    killed_at = time.time()
    wait_for(lambda: len(jobs.run()["segments"]) == 2, seconds=120, what="the takeover")
    assert jobs.run()["segments"][1]["opened_at"] - killed_at < LEASE_SECONDS + 20
    jobs.wait_until_it_can_roll_back(requeued)
    order = jobs.roll_back()
    assert (order["state"], len(jobs.segments_of(order)), requeued.num_rollbacks) == ("applied", 1, 1)


def test_of_two_processes_that_could_not_ask_one_carries_out_the_order_and_the_other_takes_over(jobs: Jobs) -> None:
    """Both began while the collector was down."""
    pair = [jobs.start("node-1", "first"), jobs.start("node-2", "second")]
    for job in pair:
        wait_for(job.files, seconds=120, what="a spool")
    jobs.collector.start()
    jobs.collector.wait_until_up()
    wait_for(lambda: len(jobs.run()["segments"]) == 2, seconds=120, what="both processes")
    jobs.wait_until_it_can_roll_back()
    order = jobs.roll_back()
    assert (order["state"], len(jobs.segments_of(order))) == ("applied", 1)
    assert sorted(job.num_rollbacks for job in pair) == [0, 1]
    holder, other = sorted(pair, key=lambda job: -job.num_rollbacks)
    assert "carries out no orders until that has ended" in other.log

    holder.process.kill()
    holder.process.wait(30)

    def is_taken_over() -> bool:
        return f"{other.process.pid}@" in str(jobs.run().get("lease_process"))

    wait_for(is_taken_over, seconds=120, what="the takeover")
    jobs.wait_until_it_can_roll_back(other)
    second_order = jobs.roll_back()
    assert (second_order["state"], len(jobs.segments_of(second_order))) == ("applied", 1)
    assert (holder.num_rollbacks, other.num_rollbacks) == (1, 1)
