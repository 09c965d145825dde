"""How long after a spike's step the page is there, and how long after its verification it resolves.

    python -m benchmarks.page [--times 3]

Real Prometheus and Alertmanager with the intervals of deploy/, a collector, a webhook on loopback; a small model trains
with one planted fault, and once without: then nobody may be paged.
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
from db.engine import create_engine
from db.models import Intervention, Step
from demo.processes import Processes
from tests.deploy.stack import TOKEN, Pager, Stack, pager
from tests.loop import small_settings
from tests.waiting import wait_for

STRIKES = 160
WANTED_PAGE, WANTED_RESOLVED = 60.0, 120.0
CLEAN_SECONDS = 90.0


def measure(times: int = 3) -> Iterator[Row]:
    paged, resolved = [], []
    for _ in range(times):
        with training(f"random_targets@{STRIKES}") as (stack, seen):
            struck, verified = told(stack, seen)
            paged.append(first(seen, "firing") - struck)
            resolved.append(first(seen, "resolved") - verified)
    yield Row(f"spike step to page, worst of {times}", max(paged), "s", WANTED_PAGE, spread(paged))
    yield Row(f"verified to resolved, worst of {times}", max(resolved), "s", WANTED_RESOLVED, spread(resolved))
    with training() as (_, seen):
        time.sleep(CLEAN_SECONDS)
    yield Row(f"pages of a clean run in {CLEAN_SECONDS:.0f} s", float(len(seen.seen)), "pages", 0.0, "")


def spread(seconds: Sequence[float]) -> str:
    return "each: " + ", ".join(f"{one:.0f} s" for one in seconds)


def first(seen: Pager, status: str) -> float:
    found = seen.first("LossSpike", status)
    assert found is not None
    return found[0]


def told(stack: Stack, seen: Pager) -> tuple[float, float]:
    """Waits until it is over: when the spike's step was taken, and when its rollback was verified (unix seconds)."""
    wait_for(lambda: seen.first("LossSpike", "firing"), seconds=300, what="the page")
    wait_for(lambda: seen.first("LossSpike", "resolved"), seconds=300, what="its resolution")
    engine = create_engine(stack.database)
    with engine.connect() as connection:
        struck = connection.scalar(sa.select(Step.time).where(Step.step == STRIKES).order_by(Step.segment).limit(1))
        verified = connection.scalar(sa.select(Intervention.changed_at).where(Intervention.state == "verified"))
    engine.dispose()
    assert struck is not None
    assert verified is not None, "it resolved before the rollback was verified"
    return struck, verified


@contextmanager
def training(*faults: str) -> Iterator[tuple[Stack, Pager]]:
    """A stack, and a run that trains on it until the block ends."""
    with tempfile.TemporaryDirectory() as name, pager() as seen, Processes(Path(name) / "logs") as processes:
        stack = Stack(processes, Path(name), seen.url)
        planted = [part for fault in faults for part in ("--fault", fault)]
        command = ["-m", "trainer", "run", "--run-id", "r", "--steps", "200000", "--out", f"{name}/out"]
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        trainer = processes.start("trainer", *command, *small_settings(), *planted, environment=environment)
        yield stack, seen
        assert trainer.poll() is None, processes.log_of("trainer").read_text()[-500:]
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page")
    parser.add_argument("--times", type=int, default=3, help="runs with a fault")
    print_rows(measure(parser.parse_args().times))
