"""Kills a collector at random moments under load and checks that no run is affected.

    python -m tests.reliability.drill [--kills 100] [--postgresql] [--seed 0]

Three trainers report runs, each with a NaN, the rollback that follows and its verification. They retry every report
until it is answered, and send a fifth of the reports again later (duplicates, out of order). Meanwhile the collector is
killed with SIGKILL and restarted, at a random moment each time. Every run must end like an undisturbed one: the same
values on every segment, the same incidents, interventions, orders and skip ledger. The last line of output is one JSON
object. The exit code is 0 only if no step was lost or counted twice and every verdict is the same.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests import postgres
from tests.reliability.collector import CollectorProcess, Trainer, history, reports, verdicts
from tests.waiting import pause

NUM_STEPS, NAN_STEP, STEPS_PER_REPORT, NUM_TRAINERS = 520, 300, 10, 3
RESENT_SHARE = 0.2
"""Share of the reports that are sent a second time, after later ones."""
RESULT_LOCK = threading.Lock()


@dataclass(slots=True)
class Result:
    kills: int = 0
    runs: int = 0
    steps: int = 0
    retries: int = 0
    doubled: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def train(trainer: Trainer, noise: random.Random | None = None) -> int:
    """Report one run up to the verification of its rollback; the number of reports that were sent twice."""
    doubled = _deliver(
        trainer,
        reports(trainer.open("a"), 0, NAN_STEP + STEPS_PER_REPORT, STEPS_PER_REPORT, seed=1, nan_at=NAN_STEP),
        noise,
    )
    (order,) = trainer.orders.values()
    segment = trainer.obey(order, "b")
    return doubled + _deliver(trainer, reports(segment, order["rewind_to"], NUM_STEPS, STEPS_PER_REPORT, seed=7), noise)


def _deliver(trainer: Trainer, bodies: Sequence[Any], noise: random.Random | None) -> int:
    doubled = 0
    for at, body in enumerate(bodies):
        trainer.report(body)
        if noise is not None and noise.random() < RESENT_SHARE:
            answer = trainer.report(noise.choice(bodies[: at + 1]))
            assert answer["accepted"] == 0, "a report was counted twice"
            doubled += 1
    return doubled


def drill(database_url: str, folder: Path, *, kills: int, seed: int) -> Result:
    """Kill the collector `kills` times while runs are reported, and compare them with an undisturbed run."""
    collector, result, noise = CollectorProcess(database_url, folder / "collector.log"), Result(), random.Random(seed)
    collector.start()
    collector.wait_until_up()
    began = time.monotonic()
    undisturbed = Trainer([collector.url], "undisturbed")
    train(undisturbed)
    expected = (verdicts(undisturbed), history(undisturbed))
    over = threading.Event()
    threads = [
        threading.Thread(target=_load, args=(collector.url, number, expected, over, result))
        for number in range(NUM_TRAINERS)
    ]
    for thread in threads:
        thread.start()
    while result.kills < kills and not result.failures:
        pause(noise.uniform(0.0, 0.5))
        collector.kill()
        result.kills += 1
        collector.start()
        collector.wait_until_up()
    over.set()
    for thread in threads:
        thread.join()
    result.seconds = round(time.monotonic() - began, 1)
    collector.stop()
    return result


def _load(url: str, number: int, expected: tuple[Any, Any], over: threading.Event, result: Result) -> None:
    """Report one run after the other until `over` is set, and compare each with the undisturbed one."""
    noise, round_ = random.Random(number), 0
    try:
        while round_ == 0 or not over.is_set():
            trainer = Trainer([url], f"run-{number}-{round_}")
            doubled = train(trainer, noise)
            if (found := (verdicts(trainer), history(trainer))) != expected:
                result.failures.append(f"{trainer.run_id}: not as undisturbed: {found} != {expected}"[:2000])
            steps = sum(segment["num_steps"] for segment in trainer.get()["segments"])
            with RESULT_LOCK:
                result.runs += 1
                result.steps += steps
                result.retries += trainer.retries
                result.doubled += doubled
            round_ += 1
    except Exception as error:  # whatever it is, the drill reports it
        result.failures.append(f"run-{number}-{round_}: {error!r}"[:2000])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgresql", action="store_true", help="use a temporary PostgreSQL server instead of SQLite")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/store.db"
        if arguments.postgresql:
            url = stack.enter_context(postgres.running(durable=True)).url()
        result = drill(url, folder, kills=arguments.kills, seed=arguments.seed)
    print(json.dumps(asdict(result)))
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
