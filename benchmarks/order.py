"""How long it takes from the spike's step being logged to the order reaching the trainer, on one machine.

python -m benchmarks.order

A real collector in a process of its own; 20 runs of 200 quiet steps, then a NaN loss. Beside it: the round trip of an
empty report to the same collector, which is the least that any answer can take.
"""

import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import lossguard
from benchmarks.rows import Row, print_rows
from demo.processes import Processes

PORT = 8765
NUM_RUNS = 20
NUM_STEPS = 200


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{folder}/bench.db"}
        processes.start("collector", "-m", "monitor", "serve", "--port", str(PORT), environment=environment)
        url = f"http://127.0.0.1:{PORT}"
        processes.wait_until_up("collector", f"{url}/healthz")
        latencies = [_one(url, folder, number) for number in range(NUM_RUNS)]
        floor = _round_trip(url)
    latencies.sort()
    comparison = f"an empty report's round trip: {1e3 * floor:.1f} ms"
    return [
        Row("order latency, median", 1e3 * statistics.median(latencies), "ms", 250.0, comparison),
        Row("order latency, worst of 20", 1e3 * latencies[-1], "ms", None, ""),
    ]


def _one(url: str, folder: str, number: int) -> float:
    """Seconds from logging a NaN loss to the order in the trainer's hand."""
    noise = random.Random(number)
    run = lossguard.init("bench", url=url, directory=f"{folder}/spool", mode="online")
    run.can_roll_back()
    run.set_restorable(list(range(0, NUM_STEPS, 50)))
    for step in range(NUM_STEPS):
        run.log(step, loss=3.0 + noise.gauss(0, 0.02), grad_norm=1.0 + noise.gauss(0, 0.05))
    time.sleep(1.0)  # the sender has delivered what went before, and is between two rounds at a random point
    time.sleep(noise.random() / 5)
    start = time.perf_counter()
    run.log(NUM_STEPS, loss=float("nan"), grad_norm=1.0)
    while run.take_order() is None:
        if time.perf_counter() - start > 30:
            raise RuntimeError("no order within 30 s")
        time.sleep(0.0005)
    latency = time.perf_counter() - start
    run.finish(timeout=5.0)
    return latency


def _round_trip(url: str) -> float:
    """Seconds that a heartbeat of a run takes, as a median."""
    with lossguard.Client(url) as client:
        (run, *_) = client.get("/runs")
        return statistics.median(_heartbeat(client, run["id"]) for _ in range(50))


def _heartbeat(client: lossguard.Client, run_id: str) -> float:
    start = time.perf_counter()
    client.request("POST", f"/runs/{run_id}/reports", {"segment": 0})
    return time.perf_counter() - start


if __name__ == "__main__":
    os.environ.pop("LOSSGUARD_RUN_ID", None)
    print_rows(measure())
