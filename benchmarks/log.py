"""How long `run.log` holds up the training loop: 8 scalars per step in a tight loop.

    python -m benchmarks.log [--peers]

For comparison, in the same process: one JSON line and one write, the minimum for a durable log. `--peers` adds trackio
and wandb (offline), installed into a temporary virtual environment.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from collections.abc import Callable
from pathlib import Path

import lossguard
from benchmarks.rows import Row, print_rows
from benchmarks.sink import sink

NUM_STEPS = 200_000
METRICS = {
    "loss": 2.718281828459045,
    "perplexity": 15.154262241479262,
    "grad_norm": 0.8366600265340756,
    "log_z": 10.723805294763608,
    "log_z_max": 12.049129437,
    "z_loss": 0.011500000002,
    "lr": 0.00029375,
    "tokens": 123_456_789.0,
}
PEERS = {
    "trackio": "import trackio; trackio.init(project='bench', embed=False); log = trackio.log; end = trackio.finish",
    "wandb": "import wandb; run = wandb.init(project='bench', mode='offline'); log = run.log; end = run.finish",
}


def measure(*, peers: bool = False) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        floor = _percentiles(_json_line_and_write(Path(folder) / "floor"))
        offline = _run(folder, mode="offline")
        with sink() as running:
            online = _run(folder, url=running.url)
    comparison = f"one JSON line + write(): median {floor[0]:.1f} us, p99 {floor[1]:.1f} us"
    rows = [
        Row("run.log of 8 scalars, offline, median", offline[0], "us", 10.0, comparison),
        Row("run.log of 8 scalars, offline, p99", offline[1], "us", 60.0, comparison),
        Row("run.log of 8 scalars, while delivering, median", online[0], "us", 10.0, comparison),
        Row("run.log of 8 scalars, while delivering, p99", online[1], "us", 60.0, comparison),
    ]
    return rows + (_peers() if peers else [])


def _run(folder: str, *, mode: str | None = None, url: str | None = None) -> tuple[float, float]:
    run = lossguard.init("bench", directory=folder, mode=mode, url=url)
    run.log(0, **METRICS)
    time.sleep(0.5)  # the sender has connected
    percentiles = _percentiles(lambda step: run.log(step + 1, **METRICS))
    run.finish(timeout=60.0)
    return percentiles


def _json_line_and_write(path: Path) -> Callable[[int], None]:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda step: void(
        os.write(file, json.dumps({"step": step, "time": time.time(), **METRICS}).encode() + b"\n")
    )


def void(value: object) -> None:
    """Drop a value, so that a lambda returns None."""


def _percentiles(log: Callable[[int], None]) -> tuple[float, float]:
    """Median and 99th percentile of a call, in microseconds."""
    seconds = []
    for step in range(NUM_STEPS):
        began = time.perf_counter()
        log(step)
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    return 1e6 * seconds[NUM_STEPS // 2], 1e6 * seconds[NUM_STEPS * 99 // 100]


PEER_SCRIPT = textwrap.dedent(
    """
    import json, sys, time
    {begin}
    metrics, seconds = json.loads(sys.argv[1]), []
    for step in range({steps}):
        began = time.perf_counter()
        log(metrics, step=step)
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    print("measured", 1e6 * seconds[len(seconds) // 2], 1e6 * seconds[len(seconds) * 99 // 100], flush=True)
    end()
    """
)


def _peers() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        rows = []
        for name, begin in PEERS.items():
            subprocess.run([python, "-m", "pip", "install", "--quiet", name], check=True)
            script = PEER_SCRIPT.format(begin=begin, steps=5_000)
            environment = os.environ | {"HOME": folder, "WANDB_SILENT": "true"}
            command = [python, "-c", script, json.dumps(METRICS)]
            ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            rows += _peer_rows(name, ran)
        return rows


def _peer_rows(name: str, ran: subprocess.CompletedProcess[str]) -> list[Row]:
    measured = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("measured")]
    if not measured:
        print(f"{name} did not run: {ran.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return []
    return [
        Row(f"{name}, the same 8 scalars, {what}", float(value), "us", None, "")
        for what, value in zip(("median", "p99"), measured[0], strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log")
    parser.add_argument(
        "--peers", action="store_true", help="also measure trackio and wandb, installed into a temporary folder"
    )
    print_rows(measure(peers=parser.parse_args().peers))
