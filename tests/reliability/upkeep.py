"""Trainers, readers and every kind of upkeep at one SQLite store at once, and what each of them found wrong.

    python -m tests.reliability.upkeep [--seconds 60]

A collector takes reports of runs whose values are a function of run and step. Meanwhile other processes pack what
killed runs left, archive, bring back and prune in loops, runs are deleted over HTTP, and readers compare every
frame and chart with that function.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import urllib3
from typer.testing import CliRunner

from db import frames, migrate, queries
from db.cli.app import app
from db.store.engine import create_engine, reading, writing
from lossguard import Client
from lossguard.vocabulary.protocol import API
from lossguard.vocabulary.states import RunState
from tests.db.seed import add_run, add_segment, add_steps
from tests.reliability.collector import CollectorProcess
from tests.waiting import pause

KEPT, PRUNED, DELETED = "kept", "pruned", "deleted"
"""Projects: their ended runs stay, are deleted by `prune`, or over HTTP."""
LENGTH = 2_000
"""Steps of a run."""
REPORT_SIZES = (1, 7, 700, 1, 40, 1_100, 3)
METRICS = ("loss", "eval/acc")
UPKEEP: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "pack": (("pack",),),
    "archive": (("archive", "--older-than", "0d", "--to"), ("unarchive", "--all")),
    "prune": (("prune",),),
}
"""What each process of upkeep calls in turn; the place of archived steps follows `--to`."""


def truth(run_id: str, metric: str, steps: Any) -> Any:
    """float64[N]: the values of a metric at these steps, with all bits of a float64 in use."""
    numbers = np.asarray(steps, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    numbers ^= np.uint64(zlib.crc32(f"{run_id} {metric}".encode()))
    values = 2.0 + (numbers * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(11)).astype(np.float64) / 2.0**53
    if metric == "eval/acc":
        values[numbers % np.uint64(89) == 0] = np.nan
        values[numbers % np.uint64(97) == 0] = -np.inf
    return values


@dataclass
class Ledger:
    """What was acknowledged, and what was found to be wrong."""

    steps: dict[str, int] = field(default_factory=dict)
    """Steps of each run that were acknowledged: the first ones."""
    ended: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often something was done; for a command, the first words of the lines that it printed."""

    def may_be_gone(self, run_id: str) -> bool:
        return run_id in self.ended and not run_id.startswith(KEPT)


class Actor(threading.Thread):
    """Does something again and again until the end; what it raises is a problem."""

    def __init__(self, ledger: Ledger, end: threading.Event, act: Callable[[], None], *, pause: float) -> None:
        super().__init__(daemon=True)
        self._ledger, self._end, self._act, self._pause = ledger, end, act, pause

    def run(self) -> None:
        while not self._end.wait(self._pause):
            try:
                self._act()
            except Exception as error:  # the test shows it
                self._ledger.problems.append(f"{type(error).__name__}: {error}")


class Trainer:
    """Reports runs one after the other, some reports twice, and ends them."""

    def __init__(self, url: str, project: str, ledger: Ledger) -> None:
        self._http, self._url = urllib3.PoolManager(retries=False, timeout=60), f"{url}{API}/runs"
        self._project, self._ledger, self._numbers = project, ledger, count()
        self._reports = self._of_all_runs()

    def report(self) -> None:
        next(self._reports)

    def _of_all_runs(self) -> Iterator[None]:
        for number in self._numbers:
            run_id = f"{self._project}-{number}"
            self._post("", {"id": run_id, "project": self._project, "capabilities": [], "started_at": 0.0})
            self._post(f"/{run_id}/segments", {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0})
            first, sizes = 0, random.Random(run_id)
            while first < LENGTH:
                steps = range(first, min(first + sizes.choice(REPORT_SIZES), LENGTH))
                self._report(run_id, steps)
                first = steps.stop
                yield
            self._post(f"/{run_id}/finish", {"state": "finished", "at": time.time()})
            self._ledger.ended.add(run_id)
            self._ledger.counts["run ended"] += 1

    def _report(self, run_id: str, steps: range) -> None:
        metrics = {name: [_as_json(value) for value in truth(run_id, name, steps).tolist()] for name in METRICS}
        body = {"segment": 0, "steps": list(steps), "times": [1.8e9 + step for step in steps], "metrics": metrics}
        expected = [len(steps)] if len(steps) % 2 else [len(steps), 0]  # some are sent twice
        accepted = [self._post(f"/{run_id}/reports", body)["accepted"] for _ in expected]
        self._ledger.steps[run_id] = steps.stop
        self._ledger.counts["report"] += 1
        if accepted != expected:
            self._ledger.problems.append(f"{run_id}: {steps} were accepted as {accepted}, expected {expected}")

    def _post(self, path: str, body: object) -> dict[str, Any]:
        answer = self._http.request("POST", f"{self._url}{path}", json=body)
        if answer.status >= 300:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.data[:300]!r}")
        decoded: dict[str, Any] = answer.json()
        return decoded


class Reader:
    """Reads runs from the store and over HTTP, and compares what it gets with the truth."""

    def __init__(self, engine: sa.Engine, url: str, ledger: Ledger) -> None:
        self._engine, self._ledger, self._choice = engine, ledger, random.Random(0)
        self._client = Client(url, timeout=60)

    def read(self) -> None:
        if self._ledger.steps:
            self.compare(self._choice.choice(list(self._ledger.steps)))

    def compare(self, run_id: str) -> None:
        acknowledged = self._ledger.steps[run_id]
        with reading(self._engine) as session:
            run = queries.run_named(session, run_id=run_id)
            if run is None:
                if not self._ledger.may_be_gone(run_id):
                    self._ledger.problems.append(f"{run_id} is gone")
                return
            frame = frames.steps(session, run=run, metrics=METRICS)
            live = queries.live(session, run=run)
            (series,) = queries.many_series(session, run=run, step_ranges=live, metrics=["loss"], points=50).values()
        self._check(run_id, acknowledged, frame, "from the store")
        highest = max((value for value in series.max if value is not None), default=None)
        if sum(series.count) != len(frame) or (len(frame) and highest != frame["loss"].max()):
            self._ledger.problems.append(f"{run_id}: the chart shows {sum(series.count)} of {len(frame)} steps")
        self._ledger.counts["read from the store"] += 1

    def read_over_http(self) -> None:
        if not self._ledger.steps:
            return
        run_id = self._choice.choice(list(self._ledger.steps))
        acknowledged = self._ledger.steps[run_id]
        try:
            frame = self._client.run(run_id).frame(METRICS)
        except Exception:
            if self._ledger.may_be_gone(run_id):
                return
            raise
        self._check(run_id, acknowledged, frame, "over HTTP")
        self._ledger.counts["read over HTTP"] += 1

    def _check(self, run_id: str, acknowledged: int, frame: Any, where: str) -> None:
        steps = frame.index.to_numpy()
        if len(steps) < acknowledged or not np.array_equal(steps, np.arange(len(steps))):
            self._ledger.problems.append(f"{run_id} {where}: {acknowledged} steps were acknowledged, {len(steps)} read")
        for name in METRICS:
            values = frame[name].to_numpy(dtype=np.float64, copy=True)
            expected = truth(run_id, name, steps)
            other = f"{name}_non_finite"
            if other in frame:
                named = frame[other].notna().to_numpy()
                values[named] = frame[other][named].astype(float)
            if values.tobytes() != expected.tobytes():
                self._ledger.problems.append(f"{run_id} {where}: {name} is not what was reported")


class OldRuns:
    """Adds runs that were killed long ago, whose last steps are rows."""

    def __init__(self, engine: sa.Engine, ledger: Ledger) -> None:
        self._engine, self._ledger, self._numbers = engine, ledger, count()

    def add(self) -> None:
        run_id = f"{KEPT}-old-{next(self._numbers)}"
        with writing(self._engine) as session:
            run = add_run(session, run_id)
            segment = add_segment(session, run, "a")
            for steps in (range(LENGTH - 500), range(LENGTH - 500, LENGTH)):
                add_steps(
                    session, run, segment, steps, **{name: truth(run_id, name, steps).tolist() for name in METRICS}
                )
            run.state = RunState.INTERRUPTED
        self._ledger.steps[run_id] = LENGTH
        self._ledger.ended.add(run_id)


class Upkeep:
    """A process that calls commands of `python -m db` in turn."""

    def __init__(self, name: str, url: str, place: Path, ledger: Ledger) -> None:
        words = [[*each, str(place)] if each[-1] == "--to" else [*each] for each in UPKEEP[name]]
        self._commands = cycle([*each, "--url", url] for each in words)
        self._ledger = ledger
        program = [sys.executable, "-m", "tests.reliability.db_commands"]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call_next(self) -> None:
        command = next(self._commands)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        code, said = json.loads(self._process.stdout.readline())
        self._ledger.counts.update(line.split()[0] for line in said.splitlines())
        if code:
            self._ledger.problems.append(f"{command[0]} ended with {code}: {said}")

    def end(self) -> None:
        self._process.communicate()


def stress(folder: Path, *, is_enough: Callable[[Ledger], bool]) -> Ledger:
    """All of it at once until it is enough or something is wrong; afterwards every run is compared once more."""
    url, ledger, end = f"sqlite:///{folder}/store.db", Ledger(), threading.Event()
    engine = create_engine(url)
    migrate.upgrade(engine)
    old_runs = OldRuns(engine, ledger)
    _run("retention", "set", PRUNED, "0.00001", "--url", url)
    collector = CollectorProcess(url, folder / "collector.log")
    collector.start()
    upkeep = []
    try:
        upkeep += [Upkeep(name, url, folder / "place", ledger) for name in UPKEEP]
        collector.wait_until_up(timeout=120.0)
        trainers = [Trainer(collector.url, project, ledger) for project in (KEPT, PRUNED, DELETED)]
        reader = Reader(engine, collector.url, ledger)
        actors = [Actor(ledger, end, trainer.report, pause=0.01) for trainer in trainers]
        actors += [Actor(ledger, end, act, pause=0.05) for act in (reader.read, reader.read_over_http)]
        actors.append(Actor(ledger, end, lambda: _delete_oldest(collector.url, ledger), pause=0.2))
        actors.append(Actor(ledger, end, old_runs.add, pause=1.0))
        actors += [Actor(ledger, end, process.call_next, pause=0.1) for process in upkeep]
        for actor in actors:
            actor.start()
        while not (ledger.problems or is_enough(ledger)):
            pause(0.1)
        end.set()
        for actor in actors:
            actor.join(60)
        for run_id in list(ledger.steps):
            reader.compare(run_id)
        _run("check", "--verify", "--url", url)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    finally:
        end.set()
        for process in upkeep:
            process.end()
        collector.stop()
        engine.dispose()
    return ledger


def _delete_oldest(url: str, ledger: Ledger) -> None:
    for run_id in [one for one in ledger.ended if one.startswith(DELETED)][:1]:
        answer = urllib3.request("DELETE", f"{url}{API}/runs/{run_id}", timeout=60)
        if answer.status not in (200, 204, 404):
            ledger.problems.append(f"the deletion of {run_id} was answered {answer.status}: {answer.data[:300]!r}")
        ledger.counts["deletion over HTTP"] += 1


def _run(*words: str) -> None:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output


def _as_json(value: float) -> float | str:
    return value if np.isfinite(value) else "NaN" if np.isnan(value) else "-Infinity"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    latest = time.monotonic() + parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        found = stress(Path(folder), is_enough=lambda ledger: time.monotonic() > latest)
    print(dict(found.counts))
    print("\n".join(found.problems) or "nothing was wrong")
