"""Collectors are replaced by those of the next release one after another, while runs report: no step is lost."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import urllib3

from db.store.engine import create_engine, reading
from db.store.features import BLOCKS, is_enabled
from tests import postgres, previous_release
from tests.reliability.collector import CollectorProcess
from tests.reliability.training import Training, trainings, wait_for_reports

NUM_RUNS = 3


def db(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "db", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def readiness(collector: CollectorProcess) -> int:
    return urllib3.request("GET", f"{collector.url}/readyz", retries=False, timeout=20).status


@pytest.mark.slow(15)
@pytest.mark.timeout(600)
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
        with trainings([collector.url for collector in collectors], num_runs=NUM_RUNS) as runs:
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
