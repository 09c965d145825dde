"""Whatever happens to the collector and its database, acknowledged steps are stored once and verdicts do not change."""

import resource
import threading
from pathlib import Path

import pytest

from tests import postgres
from tests.reliability.collector import CollectorProcess, Trainer, history, running, verdicts
from tests.reliability.drill import drill, train
from tests.reliability.training import Training, trainings, wait_for_reports
from tests.waiting import eventually

pytestmark = pytest.mark.system


def test_a_collector_that_is_killed_repeatedly_neither_loses_nor_duplicates_a_step(
    database_url: str, tmp_path: Path
) -> None:
    result = drill(database_url, tmp_path, kills=5, seed=1)
    assert result.failures == []
    assert (result.kills, result.runs >= 3, result.retries > 0) == (5, True, True)


def test_a_full_disk_is_answered_with_503_and_everything_is_delivered_afterwards(tmp_path: Path) -> None:
    """The kernel refuses to let the collector's files grow while the trainer retries; then it allows it again."""
    collector = CollectorProcess(f"sqlite:///{tmp_path}/store.db", tmp_path / "log")
    with running(collector):
        undisturbed = Trainer([collector.url], "undisturbed")
        train(undisturbed)
        trainer = Trainer([collector.url], "full")
        soft, hard = resource.prlimit(collector.pid, resource.RLIMIT_FSIZE)
        worker = threading.Thread(target=train, args=(trainer,))
        resource.prlimit(collector.pid, resource.RLIMIT_FSIZE, (4096, hard))
        worker.start()
        assert eventually(lambda: trainer.retries > 3)
        assert worker.is_alive()
        resource.prlimit(collector.pid, resource.RLIMIT_FSIZE, (soft, hard))
        worker.join(120)
        assert not worker.is_alive()
        assert (verdicts(trainer), history(trainer)) == (verdicts(undisturbed), history(undisturbed))


@pytest.mark.needs("postgresql")
def test_a_collector_reconnects_to_a_database_that_crashed(tmp_path: Path) -> None:
    with postgres.running(durable=True) as server, running(CollectorProcess(server.url(), tmp_path / "log")) as (one,):
        undisturbed = Training([one.url], "undisturbed")
        undisturbed.start()
        expected = undisturbed.outcome()
        with trainings([one.url], num_runs=1, seconds=0.05) as (crashes,):
            for _ in range(3):
                wait_for_reports([crashes])
                server.stop("immediate")
                before = crashes.trainer.retries
                assert eventually(lambda: crashes.trainer.retries > before)  # noqa: B023
                server.start()
        assert crashes.outcome() == expected
