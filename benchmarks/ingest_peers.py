"""How many steps of 8 metrics per second others ingest: mlflow's server by log-batch, and trackio by its own client."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3

from benchmarks.peers import python_with
from benchmarks.rows import Row
from tests.ports import free_port

NUM_STEPS = 5_000
STEPS_PER_REQUEST = 125
"""mlflow accepts 1,000 metrics per request, 8 per step."""
NAMES = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")


def measure() -> Iterator[Row]:
    with python_with("mlflow", "trackio") as python, tempfile.TemporaryDirectory() as folder:
        for name, seconds in (("mlflow server, log-batch into SQLite", _mlflow), ("trackio, its own client", _trackio)):
            took = seconds(python, Path(folder))
            rate = "did not run" if took is None else f"{NUM_STEPS / took:,.0f} steps/s"
            yield Row(
                f"{name}, 8 metrics",
                float("nan") if took is None else 1e6 * took / NUM_STEPS,
                "us per step",
                None,
                rate,
            )


def _mlflow(python: Path, folder: Path) -> float | None:
    """Seconds for all steps over one HTTP connection, with requests as large as mlflow accepts."""
    port = free_port()
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        with urllib3.PoolManager(retries=False) as http:
            return _log_batches(http, f"http://127.0.0.1:{port}/api/2.0/mlflow")
    except (TimeoutError, RuntimeError) as error:
        print(f"mlflow: {error}; see its log: {(folder / 'mlflow.log').read_text()[-500:]}", file=sys.stderr)
        return None
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the server and its workers: a session of their own
        server.wait(30)


def _log_batches(http: urllib3.PoolManager, api: str) -> float:
    deadline = time.monotonic() + 180
    while not _up(http, api):
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not answer within 180 s")
        time.sleep(0.5)
    run = _post(http, f"{api}/runs/create", {"experiment_id": "0", "start_time": 0})["run"]["info"]["run_id"]
    bodies = [
        json.dumps({"run_id": run, "metrics": _metrics(first)}).encode()
        for first in range(0, NUM_STEPS, STEPS_PER_REQUEST)
    ]
    began = time.perf_counter()
    for body in bodies:
        _post(http, f"{api}/runs/log-batch", body)
    return time.perf_counter() - began


def _up(http: urllib3.PoolManager, api: str) -> bool:
    try:
        return http.request("GET", api.removesuffix("/api/2.0/mlflow") + "/health", timeout=5.0).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _metrics(first: int) -> list[dict[str, object]]:
    return [
        {"key": name, "value": 1.0 + step / 7, "timestamp": step, "step": step}
        for step in range(first, first + STEPS_PER_REQUEST)
        for name in NAMES
    ]


def _post(http: urllib3.PoolManager, url: str, body: object) -> dict[str, dict[str, dict[str, str]]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.request("POST", url, body=content, headers={"content-type": "application/json"}, timeout=120.0)
    if answer.status != 200:
        raise RuntimeError(f"{url} answered {answer.status}: {answer.data[:300]!r}")
    decoded: dict[str, dict[str, dict[str, str]]] = answer.json()
    return decoded


TRACKIO = textwrap.dedent(
    """
    import sys, time, trackio
    names, steps = sys.argv[1].split(","), int(sys.argv[2])
    run = trackio.init(project="bench", name="r")
    began = time.perf_counter()
    for step in range(steps):
        trackio.log({name: 1.0 + step / 7 for name in names}, step=step)
    trackio.finish()
    print("measured", time.perf_counter() - began, flush=True)
    """
)


def _trackio(python: Path, folder: Path) -> float | None:
    """Seconds until `finish` returns, when everything is stored."""
    environment = os.environ | {"HOME": str(folder), "TRACKIO_DIR": str(folder / "trackio")}
    command = [str(python), "-c", TRACKIO, ",".join(NAMES), str(NUM_STEPS)]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    measured = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("measured")]
    if not measured:
        print(f"trackio did not run: {ran.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(measured[0])
