"""Costs of the SDK to the loop and its command: `run.log`, steps lost at kill -9, order latency, `lossguard launch`.

    python -m benchmarks.log [--peers] [--only log kill order launch]

* `run.log` of 8 scalars in a tight loop, in turns with one JSON line and one write in the same process: the minimum for
  a durable log. `--peers` adds trackio and wandb (offline), installed into a temporary environment.
* Logged minus arrived steps when the trainer is killed with kill -9, with the collector up and down.
* The time from logging a NaN until the trainer has the order: 20 runs of 200 quiet steps, in loops that take longer for
  a step than the sender pauses after a report, and in loops of 20 ms a step, which the pause holds up. For comparison:
  the round trip of an empty report, the minimum for any answer.
* The time that `lossguard launch` adds to the life of a short command.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lossguard
from benchmarks.harness import (
    ROOT,
    Row,
    collector,
    interleaved,
    load,
    measured_by,
    print_rows,
    python_with,
    seconds_of,
    sink,
)

NAMES = ("log", "kill", "order", "launch")
NUM_CALLS, CALLS_IN_TURN = 200_000, 500
NUM_PEER_CALLS, NUM_KILLS, NUM_STARTS = 5_000, 5, 25
NUM_RUNS, NUM_STEPS, FAST_STEP_SECONDS = 20, 200, 0.02
UNREACHABLE_URL = "http://127.0.0.1:9"
METRICS = {
    "loss": 2.718281828459045, "perplexity": 15.154262241479262, "grad_norm": 0.8366600265340756,
    "log_z": 10.723805294763608, "log_z_max": 12.049129437, "z_loss": 0.011500000002, "lr": 0.00029375,
    "tokens": 123_456_789.0,
}  # fmt: skip
PEERS = {
    "trackio": "import trackio; trackio.init(project='bench', embed=False); log = trackio.log; end = trackio.finish",
    "wandb": "import wandb; run = wandb.init(project='bench', mode='offline'); log = run.log; end = run.finish",
}
PEER_SCRIPT = textwrap.dedent(
    """
    import json, sys, time
    {begin}
    metrics, seconds = json.loads(sys.argv[1]), []
    for step in range({calls}):
        began = time.perf_counter()
        log(metrics, step=step)
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    print("measured", 1e6 * seconds[len(seconds) // 2], 1e6 * seconds[len(seconds) * 99 // 100], flush=True)
    end()
    """
)
KILLED = textwrap.dedent(
    """
    import sys, time, lossguard
    run = lossguard.init("bench", run_id="killed", url=sys.argv[1], directory=sys.argv[2])
    for step in range(1_000_000):
        run.log(step, loss=2.5, grad_norm=0.5, log_z=10.0, lr=3e-4)
        print(step, flush=True)
        time.sleep(0.0005)
    """
)


def log(*, peers: bool = False, calls: int = NUM_CALLS) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, sink() as running:
        for how, options in (("offline", {"mode": "offline"}), ("while delivering", {"url": running.url})):
            (median, p99), (least_median, least_p99) = _run(folder, calls, **options)
            for what, target, cost, minimum in (("median", 1.25, median, least_median), ("p99", 1.3, p99, least_p99)):
                comparison = f"{cost:.1f} us against {minimum:.1f} us, {load()}"
                yield Row(f"run.log of 8 scalars, {how}, {what}", cost / minimum, "x", target, comparison)
    if peers:
        with python_with(*PEERS) as python, tempfile.TemporaryDirectory() as folder:
            for name, begin in PEERS.items():
                script = PEER_SCRIPT.format(begin=begin, calls=NUM_PEER_CALLS)
                environment = os.environ | {"HOME": folder, "WANDB_SILENT": "true"}
                found = measured_by([python, "-c", script, json.dumps(METRICS)], cwd=folder, env=environment)
                for what, value in zip(("median", "p99"), found, strict=True):
                    yield Row(f"{name}, the same 8 scalars, {what}", float(value), "us")


def _run(folder: str, calls: int, **options: Any) -> list[tuple[float, float]]:
    """Median and 99th percentile, in microseconds, of `run.log` and of one JSON line and one write."""
    run = lossguard.init("bench", directory=folder, **options)
    run.log(0, **METRICS)
    time.sleep(0.5)  # the sender has connected

    def ours(step: int) -> None:
        run.log(step + 1, **METRICS)

    least = _json_line_and_write(Path(folder) / "floor")
    seconds: tuple[list[float], list[float]] = ([], [])
    for begin in range(0, calls, CALLS_IN_TURN):
        for call, found in zip((ours, least), seconds, strict=True):
            for step in range(begin, begin + CALLS_IN_TURN):
                began = time.perf_counter()
                call(step)
                found.append(time.perf_counter() - began)
    run.finish(timeout=60.0)
    return [(1e6 * statistics.median(found), 1e6 * statistics.quantiles(found, n=100)[98]) for found in seconds]


def _json_line_and_write(path: Path) -> Callable[[int], object]:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda step: os.write(file, json.dumps({"step": step, "time": time.time(), **METRICS}).encode() + b"\n")


def kill(kills: int = NUM_KILLS) -> Iterator[Row]:
    for up in (True, False):
        logged, lost = zip(*(_kill_once(200 + 100 * number, up=up) for number in range(kills)), strict=True)
        name = f"steps lost after kill -9, collector {'up' if up else 'down'}"
        yield Row(name, sum(lost), "steps", 0.0, f"{sum(logged)} steps logged in {kills} killed runs")


def _kill_once(after: int, *, up: bool) -> tuple[int, int]:
    """Kill a trainer after about `after` steps and resume its run: (steps it logged, steps that never arrived)."""
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", KILLED, running.url if up else UNREACHABLE_URL, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
            assert trainer.stdout is not None
            line = next(line for line in trainer.stdout if int(line) >= after)
            trainer.send_signal(signal.SIGKILL)
            logged = 1 + int([line, *trainer.stdout.read().splitlines()][-1])
        lossguard.init("bench", run_id="killed", url=running.url, directory=folder).finish()
        return logged, len(set(range(logged)) - running.steps())


def order(runs: int = NUM_RUNS) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, collector(f"sqlite:///{folder}/bench.db") as (url, _):
        slow = [_order_seconds(url, folder, number) for number in range(runs)]
        fast = [_order_seconds(url, folder, runs + number, num_fast_steps=50) for number in range(runs)]
        with lossguard.Client(url) as client:
            path = f"/runs/{client.get('/runs')[0]['id']}/reports"
            empty = [seconds_of(lambda: client.request("POST", path, {"segment": 0})) for _ in range(50)]
    comparison = f"an empty report's round trip: {1e3 * statistics.median(empty):.1f} ms"
    yield Row("order latency, median", 1e3 * statistics.median(slow), "ms", 20.0, comparison)
    yield Row(f"order latency, slowest of {runs}", 1e3 * max(slow), "ms")
    yield Row("order latency in a loop of 20 ms a step, median", 1e3 * statistics.median(fast), "ms")


def _order_seconds(url: str, folder: str, number: int, *, num_fast_steps: int = 0) -> float:
    """Seconds from logging a NaN loss, after `num_fast_steps` fast steps, until the trainer has the order."""
    noise = random.Random(number)
    run = lossguard.init("bench", url=url, directory=f"{folder}/spool", mode="online")
    run.can_roll_back()
    run.set_restorable(list(range(0, NUM_STEPS, 50)))
    for step in range(NUM_STEPS):
        if step == NUM_STEPS - num_fast_steps:
            _await_quiet_sender(noise)
        run.log(step, loss=3.0 + noise.gauss(0, 0.02), grad_norm=1.0 + noise.gauss(0, 0.05))
        if step >= NUM_STEPS - num_fast_steps:
            time.sleep(FAST_STEP_SECONDS)
    if not num_fast_steps:
        _await_quiet_sender(noise)
    start = time.perf_counter()
    run.log(NUM_STEPS, loss=float("nan"), grad_norm=1.0)
    while run.take_order() is None:
        if time.perf_counter() - start > 30:
            raise RuntimeError("no order within 30 s")
        time.sleep(0.0005)
    latency = time.perf_counter() - start
    run.finish(timeout=5.0)
    return latency


def _await_quiet_sender(noise: random.Random) -> None:
    time.sleep(1.0)  # the sender has delivered everything before
    time.sleep(noise.random() / 5)  # a random moment between two deliveries


def launch(starts: int = NUM_STARTS) -> Iterator[Row]:
    program = [sys.executable, "-c", "pass"]
    launcher = [sys.executable, "-m", "lossguard", "launch", "--", *program]
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"LOSSGUARD_URL": running.url, "LOSSGUARD_DIR": f"{folder}/lossguard"}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        environment |= {"PYTHONPYCACHEPREFIX": f"{folder}/cache", "PYTHONDONTWRITEBYTECODE": ""}

        def lived(command: list[str]) -> tuple[float]:
            run = partial(subprocess.run, command, env=environment, check=True, capture_output=True)
            return (1e3 * seconds_of(run),)

        found = interleaved((lambda _: lived(launcher), lambda _: lived(program)), starts, 1)  # the first one compiles
    launched, alone = (statistics.median(each for (each,) in times) for times in found)
    text = f"`python -c pass`: {launched:.0f} ms launched, {alone:.0f} ms alone"
    yield Row("`lossguard launch`: added to the life of a short command, median", launched - alone, "ms", 150.0, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also measure trackio and wandb")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--runs", type=int, default=NUM_RUNS, help="runs of `order`, and commands of `launch`")
    parser.add_argument("--calls", type=int, default=NUM_CALLS, help="calls of `run.log`")
    given = parser.parse_args()
    os.environ.pop("LOSSGUARD_RUN_ID", None)
    measured = log(peers=given.peers, calls=given.calls), kill(), order(given.runs), launch(given.runs)
    rows = dict(zip(NAMES, measured, strict=True))
    for name in given.only:
        print_rows(rows[name])
