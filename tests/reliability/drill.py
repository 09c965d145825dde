"""Kills a collector at random moments under load and checks that nothing of it shows.

    python -m tests.reliability.drill [--kills 100] [--postgresql] [--seed 0]

Three trainers report runs, each with a NaN, the rollback that follows and its verification; they send every report
until it is answered, a fifth of them again later (doubled, out of order). Meanwhile the collector is killed by SIGKILL
and started again, at a random moment each time. Every run must end like one that was left in peace: the same values on
every segment, the same incidents, interventions, orders and skip ledger. The last line of output is one JSON object;
exit 0 only if nothing was lost, counted twice or judged otherwise.
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

LAST, BAD, SIZE, TRAINERS = 520, 300, 10, 3
AGAIN = 0.2
"""Share of the reports that are sent once more after later ones."""
COUNTING = threading.Lock()


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
    """One run from its first step to the verification of its rollback: the reports that were sent twice."""
    doubled = _deliver(trainer, reports(trainer.open("a"), 0, BAD + SIZE, SIZE, seed=1, bad_at=BAD), noise)
    (order,) = trainer.orders.values()
    segment = trainer.obey(order, "b")
    return doubled + _deliver(trainer, reports(segment, order["rewind_to"], LAST, SIZE, seed=7), noise)


def _deliver(trainer: Trainer, bodies: Sequence[Any], noise: random.Random | None) -> int:
    doubled = 0
    for at, body in enumerate(bodies):
        trainer.report(body)
        if noise is not None and noise.random() < AGAIN:
            answer = trainer.report(noise.choice(bodies[: at + 1]))
            assert answer["accepted"] == 0, "a report was counted twice"
            doubled += 1
    return doubled


def drill(database_url: str, folder: Path, *, kills: int, seed: int) -> Result:
    """Kill `kills` times; what it did to the runs."""
    collector, result, noise = CollectorProcess(database_url, folder / "collector.log"), Result(), random.Random(seed)
    collector.start()
    collector.wait_until_up()
    began = time.monotonic()
    peace = Trainer([collector.url], "peace")
    train(peace)
    wanted = (verdicts(peace), history(peace))
    over = threading.Event()
    threads = [
        threading.Thread(target=_load, args=(collector.url, number, wanted, over, result)) for number in range(TRAINERS)
    ]
    for thread in threads:
        thread.start()
    while result.kills < kills and not result.failures:
        time.sleep(noise.uniform(0.0, 0.5))
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


def _load(url: str, number: int, wanted: tuple[Any, Any], over: threading.Event, result: Result) -> None:
    """Train one run after the other until it is over, and compare each with the one that was left in peace."""
    noise, round_ = random.Random(number), 0
    try:
        while round_ == 0 or not over.is_set():
            trainer = Trainer([url], f"run-{number}-{round_}")
            doubled = train(trainer, noise)
            if (found := (verdicts(trainer), history(trainer))) != wanted:
                result.failures.append(f"{trainer.run_id}: not as in peace: {found} != {wanted}"[:2000])
            steps = sum(segment["num_steps"] for segment in trainer.get()["segments"])
            with COUNTING:
                result.runs += 1
                result.steps += steps
                result.retries += trainer.retries
                result.doubled += doubled
            round_ += 1
    except Exception as error:  # whatever it is, the drill has found it
        result.failures.append(f"run-{number}-{round_}: {error!r}"[:2000])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL of its own in place of SQLite")
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
