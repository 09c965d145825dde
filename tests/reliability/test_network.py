"""An unreliable network costs time, never a step: none is lost, none is counted twice, and `run.log` never waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.collector import CollectorProcess, Trainer, history, running, verdicts
from tests.reliability.drill import train
from tests.reliability.network import DELAY, Fault, Network, log_through, stored

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    folder = tmp_path_factory.mktemp("collector")
    collector = CollectorProcess(f"sqlite:///{folder}/store.db", folder / "log")
    with running(collector):
        yield collector


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_all_steps_arrive_once_whatever_fault_every_other_connection_has(
    on_sqlite: CollectorProcess, tmp_path: Path, fault: Fault
) -> None:
    network = Network(on_sqlite.port, faults=[fault, Fault.NONE], seed=4)
    losses, slowest = log_through(network, tmp_path, steps=200, run_id=fault)
    assert network.injected[fault] > 0
    assert stored(on_sqlite.url, fault) == (losses, len(losses))
    assert slowest < DELAY  # a call that waited for the network would take at least that long
    network.close()


def test_a_rollback_over_an_unreliable_network_ends_as_an_undisturbed_one(on_sqlite: CollectorProcess) -> None:
    undisturbed = Trainer([on_sqlite.url], "undisturbed")
    train(undisturbed)
    network = Network(on_sqlite.port, faults=[Fault.CUT_REQUEST, Fault.CUT_ANSWER, Fault.TRICKLE], seed=2)
    trainer = Trainer([network.url], "cut")
    train(trainer)
    network.reliable = True
    assert trainer.retries > 3
    assert (verdicts(trainer), history(trainer)) == (verdicts(undisturbed), history(undisturbed))
    network.close()
