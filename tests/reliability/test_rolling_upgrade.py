"""Collectors are replaced by those of the next release one after another, while runs report: no step is lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from db.engine import create_engine, reading
from db.features import BLOCKS, is_enabled
from tests import postgres, previous_release
from tests.reliability.collector import CollectorProcess, Trainer, history, reports, verdicts
from tests.waiting import wait_for

NUM_RUNS = 3
NAN_STEP, NUM_STEPS = 600, 1_200


class Training(threading.Thread):
    """Reports a run whose loss is NaN once, up to the verification of the rollback, and waits between two reports."""

    def __init__(self, urls: Sequence[str], run_id: str, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.trainer, self.seconds = Trainer(urls, run_id), seconds
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._deliver(reports(self.trainer.open("a"), 0, NAN_STEP + 10, 10, seed=1, nan_at=NAN_STEP))
            (order,) = self.trainer.orders.values()
            segment = self.trainer.obey(order, "b")
            self._deliver(reports(segment, order["rewind_to"], NUM_STEPS, 10, seed=7))
        except Exception as error:  # shown by the test, not by the thread
            self.failure = error

    def _deliver(self, bodies: Sequence[Any]) -> None:
        for body in bodies:
            self.trainer.report(body)
            time.sleep(self.seconds)

    def outcome(self) -> tuple[Any, Any]:
        """Everything that is stored of the run."""
        self.join(120)
        assert self.failure is None, self.failure
        return verdicts(self.trainer), history(self.trainer)


@contextmanager
def trainings(urls: Sequence[str]) -> Iterator[list[Training]]:
    """Runs that report all the while, each to the collectors in turn, and at full speed after the block."""
    started = [Training(urls, f"run-{number}", seconds=0.3) for number in range(NUM_RUNS)]
    for one in started:
        one.start()
    try:
        yield started
    finally:
        for one in started:
            one.seconds = 0.0


def wait_for_reports(runs: Sequence[Training]) -> None:
    """Wait until each run has two more reports."""
    before = [one.trainer.accepted for one in runs]

    def have_gone_on() -> bool:
        return all(one.trainer.accepted >= steps + 20 or one.failure for one, steps in zip(runs, before, strict=True))

    wait_for(have_gone_on, seconds=60, what="two more reports of each run")


def db(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "db", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def readiness(collector: CollectorProcess) -> int:
    return urllib3.request("GET", f"{collector.url}/readyz", retries=False, timeout=20).status


@pytest.mark.slow(15)
@pytest.mark.needs("postgresql")
def test_collectors_are_replaced_one_by_one_without_a_lost_report(tmp_path: Path) -> None:
    try:
        code = previous_release.unpack(tmp_path / "code")
    except previous_release.NoHistory as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        collectors = [CollectorProcess(server.url(), tmp_path / f"{at}.log", code=code) for at in range(2)]
        for collector in collectors:
            collector.start()
            stack.callback(collector.stop)
        for collector in collectors:
            collector.wait_until_up()
        with trainings([collector.url for collector in collectors]) as runs:
            wait_for_reports(runs)
            db("upgrade", "--url", server.url())
            wait_for_reports(runs)
            assert [readiness(one) for one in collectors] == [503, 503], "they serve, but do not know that they may"
            for collector in collectors:
                collector.stop()
                collector.code = None
                collector.start()
                collector.wait_until_up()
                wait_for_reports(runs)
            db("pack", "--enable", "--url", server.url())
            wait_for_reports(runs)
        undisturbed = Training([collectors[0].url], "undisturbed")
        undisturbed.start()
        expected = undisturbed.outcome()
        for one in runs:
            assert one.outcome() == expected, one.trainer.run_id
        engine = create_engine(server.url())
        with reading(engine) as session:
            assert is_enabled(session, BLOCKS)
        engine.dispose()
