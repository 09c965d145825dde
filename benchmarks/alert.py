"""How long after a spike's step the alert arrives, and how long after the verified rollback it resolves.

    python -m benchmarks.alert [--times 3]

Real Prometheus and Alertmanager with the intervals of deploy/, a collector, and a webhook on loopback. A small model
trains with one injected fault, and once without a fault: then no alert may arrive.
"""

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.rows import Row, print_rows
from db import queries
from db.lineage import StepRange
from db.models import Intervention
from db.store.engine import create_engine, reading
from lossguard_server.processes import Processes
from tests.deploy.stack import TOKEN, Stack, Webhook, webhook
from tests.loop import small_settings
from tests.waiting import wait_for

FAULT_STEP = 160
TARGET_ALERT_SECONDS, TARGET_RESOLUTION_SECONDS = 60.0, 120.0
CLEAN_RUN_SECONDS = 90.0


def measure(times: int = 3) -> Iterator[Row]:
    alerted, resolved = [], []
    for _ in range(times):
        with training(f"random_targets@{FAULT_STEP}") as (stack, receiver):
            spiked, verified = await_resolution(stack, receiver)
            alerted.append(first(receiver, "firing") - spiked)
            resolved.append(first(receiver, "resolved") - verified)
    yield Row(f"spike's step to alert, slowest of {times}", max(alerted), "s", TARGET_ALERT_SECONDS, each(alerted))
    yield Row(
        f"verified rollback to resolved alert, slowest of {times}",
        max(resolved),
        "s",
        TARGET_RESOLUTION_SECONDS,
        each(resolved),
    )
    with training() as (_, receiver):
        time.sleep(CLEAN_RUN_SECONDS)
    yield Row(f"alerts in {CLEAN_RUN_SECONDS:.0f} s of a clean run", float(len(receiver.received)), "alerts", 0.0, "")


def each(seconds: Sequence[float]) -> str:
    return "each: " + ", ".join(f"{one:.0f} s" for one in seconds)


def first(receiver: Webhook, status: str) -> float:
    found = receiver.first("LossSpike", status)
    assert found is not None
    return found[0]


def await_resolution(stack: Stack, receiver: Webhook) -> tuple[float, float]:
    """Wait for the alert and its resolution; Unix times of the spike's step and of the rollback's verification."""
    wait_for(lambda: receiver.first("LossSpike", "firing"), seconds=300, what="the alert")
    wait_for(lambda: receiver.first("LossSpike", "resolved"), seconds=300, what="its resolution")
    engine = create_engine(stack.database)
    with reading(engine) as session:
        (run,) = queries.runs(session)
        first = [StepRange(0, 0, None)]
        spiked = queries.times(session, run=run, step_ranges=first, steps=[FAULT_STEP]).get(FAULT_STEP)
        verified = session.scalar(sa.select(Intervention.changed_at).where(Intervention.state == "verified"))
    engine.dispose()
    assert spiked is not None
    assert verified is not None, "it resolved before the rollback was verified"
    return spiked, verified


@contextmanager
def training(*faults: str) -> Iterator[tuple[Stack, Webhook]]:
    """A stack, and a run that trains until the block ends."""
    with tempfile.TemporaryDirectory() as name, webhook() as receiver, Processes(Path(name) / "logs") as processes:
        stack = Stack(processes, Path(name), receiver.url)
        injected = [part for fault in faults for part in ("--fault", fault)]
        command = ["-m", "trainer", "run", "--run-id", "r", "--steps", "200000", "--out", f"{name}/out"]
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        trainer = processes.start("trainer", *command, *small_settings(), *injected, environment=environment)
        yield stack, receiver
        assert trainer.poll() is None, processes.log_of("trainer").read_text()[-500:]
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alert")
    parser.add_argument("--times", type=int, default=3, help="number of runs with a fault")
    print_rows(measure(parser.parse_args().times))
