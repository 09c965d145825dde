"""How long an order takes to reach the trainer after the spike's step was logged, on one machine.

python -m benchmarks.order

A collector process; 20 runs of 200 quiet steps, then a NaN loss: in loops that take longer for a step than the sender
pauses after a report (its pause is over when the NaN comes), and in loops of 20 ms a step (the pause holds it up). For
comparison: the round trip of an empty report to the same collector, the minimum for any answer.
"""

import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import lossguard
from benchmarks.rows import Row, print_rows
from lossguard_server.processes import Processes
from tests.ports import free_port

NUM_RUNS = 20
NUM_STEPS = 200
FAST_STEP_SECONDS = 0.02


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        port = free_port()
        environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{folder}/bench.db"}
        processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
        url = f"http://127.0.0.1:{port}"
        processes.wait_until_up("collector", f"{url}/healthz")
        latencies = [_one(url, folder, number) for number in range(NUM_RUNS)]
        fast = [_one(url, folder, NUM_RUNS + number, num_fast_steps=50) for number in range(NUM_RUNS)]
        floor = _round_trip(url)
    comparison = f"an empty report's round trip: {1e3 * floor:.1f} ms"
    return [
        Row("order latency, median", 1e3 * statistics.median(latencies), "ms", 20.0, comparison),
        Row("order latency, slowest of 20", 1e3 * max(latencies), "ms", None, ""),
        Row("order latency in a loop of 20 ms a step, median", 1e3 * statistics.median(fast), "ms", None, ""),
    ]


def _one(url: str, folder: str, number: int, *, num_fast_steps: int = 0) -> float:
    """Seconds from logging a NaN loss, after so many fast steps, until the trainer has the order."""
    noise = random.Random(number)
    run = lossguard.init("bench", url=url, directory=f"{folder}/spool", mode="online")
    run.can_roll_back()
    run.set_restorable(list(range(0, NUM_STEPS, 50)))
    for step in range(NUM_STEPS - num_fast_steps):
        run.log(step, **_quiet(noise))
    time.sleep(1.0)  # the sender has delivered everything before
    time.sleep(noise.random() / 5)  # a random moment between two deliveries
    for step in range(NUM_STEPS - num_fast_steps, NUM_STEPS):
        run.log(step, **_quiet(noise))
        time.sleep(FAST_STEP_SECONDS)
    start = time.perf_counter()
    run.log(NUM_STEPS, loss=float("nan"), grad_norm=1.0)
    while run.take_order() is None:
        if time.perf_counter() - start > 30:
            raise RuntimeError("no order within 30 s")
        time.sleep(0.0005)
    latency = time.perf_counter() - start
    run.finish(timeout=5.0)
    return latency


def _quiet(noise: random.Random) -> dict[str, float]:
    return {"loss": 3.0 + noise.gauss(0, 0.02), "grad_norm": 1.0 + noise.gauss(0, 0.05)}


def _round_trip(url: str) -> float:
    """Median round trip of a run's heartbeat, in seconds."""
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
