"""MLflow's costs: its server with PostgreSQL over its REST API, its client, and `mlflow gc`.

Runs are written through the API; most of those of the lists are copies of the rows of others.
"""

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import urllib3

from benchmarks.collectors import tree_cpu_seconds
from benchmarks.store_peers.costs import (
    BYTES,
    CALLS,
    CURVE,
    DELETION,
    METRICS,
    NUM_CLIENTS,
    PAGE,
    REPORT,
    SEARCH,
    Found,
    Sizes,
)  # fmt: skip
from benchmarks.weight import table_sizes
from db.store.engine import create_engine
from tests import postgres
from tests.ports import free_port
from tests.waiting import wait_for

PACKAGES = ("mlflow", "psycopg2-binary")
STEPS_PER_REQUEST = 125
"""MLflow accepts 1,000 metrics in a request."""
NUM_TEMPLATES = 20
"""Runs of the list that are written through the API."""
TABLES = ("runs", "params", "tags", "metrics", "latest_metrics")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}

CURVE_CODE = """
import sys, time
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
client.get_run(sys.argv[2])
began = time.process_time()
assert len(client.get_metric_history(sys.argv[2], "loss")) == int(sys.argv[3])
print(time.process_time() - began)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of MLflow, and what it and its database have used."""

    python: Path
    url: str
    store: str
    """URL of its database, as MLflow takes it."""
    engine: sa.Engine
    process: int
    database: postgres.Server
    http: urllib3.PoolManager

    def post(self, path: str, body: object) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        answer = self.http.request("POST", f"{self.url}/api/2.0/mlflow{path}", body=content, headers=headers)
        if answer.status != 200:
            raise RuntimeError(f"mlflow answered {path} with {answer.status}: {answer.data[:300]!r}")
        return answer.json()

    def cpu_seconds(self) -> float:
        return tree_cpu_seconds(self.process) + tree_cpu_seconds(self.database.process())

    def cost(self, call: Callable[[], object]) -> float:
        """Seconds of CPU time of server and database for one of CALLS calls."""
        call()
        before = self.cpu_seconds()
        for _ in range(CALLS):
            call()
        return (self.cpu_seconds() - before) / CALLS

    def new_run(self, number: int = 0, experiment: str = "0") -> str:
        values = {"experiment_id": experiment, "run_name": f"sweep {number}", "start_time": 1_000 * number}
        run_id: str = self.post("/runs/create", values)["run"]["info"]["run_id"]
        return run_id


def measure(python: Path, database: postgres.Server, folder: Path, sizes: Sizes) -> Found:
    with _served(python, database, folder) as server:
        found = {REPORT: 1e6 * _reports(server, sizes.reports)}
        run, found[BYTES] = _steps(server, sizes.steps)
        found[CURVE] = 1e6 * _curve(server, run, sizes.steps) / sizes.steps
        experiment = server.post("/experiments/create", {"name": "sweep"})["experiment_id"]
        _fill(server, experiment, sizes.runs)
        everything = {"experiment_ids": [experiment], "max_results": 50, "order_by": ["start_time DESC"]}
        found[PAGE] = 1e3 * server.cost(lambda: server.post("/runs/search", everything))
        chosen = everything | {"filter": "params.lr = '0.01'"}
        found[SEARCH] = 1e3 * server.cost(lambda: server.post("/runs/search", chosen))
        found[DELETION] = 1e3 * _deletion(server, sizes) / sizes.deleted
    return found


@contextmanager
def _served(python: Path, database: postgres.Server, folder: Path) -> Iterator[Server]:
    port = free_port()
    url = database.create_database("mlflow")
    store = url.replace("postgresql:", "postgresql+psycopg2:")
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--no-serve-artifacts", "--default-artifact-root", str(folder / "files")]
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=os.environ | QUIET, start_new_session=True
        )
    engine = create_engine(url)
    try:
        with urllib3.PoolManager(retries=False, maxsize=NUM_CLIENTS, timeout=120) as http:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: process.poll() is not None or _answers(http, address), seconds=300, what="MLflow's server")
            if process.poll() is not None:
                raise RuntimeError(f"MLflow's server did not start: {log.read_text()[-500:]}")
            yield Server(python, address, store, engine, process.pid, database, http)
    finally:
        engine.dispose()
        os.killpg(process.pid, signal.SIGKILL)  # the server and its workers: a session of their own
        process.wait(30)


def _answers(http: urllib3.PoolManager, url: str) -> bool:
    try:
        return http.request("GET", f"{url}/health", timeout=5.0).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _metrics(steps: Sequence[int]) -> list[dict[str, object]]:
    return [
        {"key": name, "value": 1.0 + step / 7, "timestamp": step, "step": step} for step in steps for name in METRICS
    ]


def _log(server: Server, run: str, steps: Sequence[int]) -> None:
    server.post("/runs/log-batch", {"run_id": run, "metrics": _metrics(steps)})


def _reports(server: Server, count: int) -> float:
    """Seconds for one of so many reports of one step."""
    runs = [server.new_run() for _ in range(NUM_CLIENTS)]
    for run in runs:
        _log(server, run, [0])
    before, each = server.cpu_seconds(), count // NUM_CLIENTS

    def train(run: str) -> None:
        for step in range(1, 1 + each):
            _log(server, run, [step])

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        for done in [pool.submit(train, run) for run in runs]:
            done.result()
    return (server.cpu_seconds() - before) / (each * NUM_CLIENTS)


def _steps(server: Server, count: int) -> tuple[str, float]:
    """A run of so many steps, and the bytes of one of them."""
    before, run = _num_bytes(server), server.new_run()
    for first in range(0, count, STEPS_PER_REQUEST):
        _log(server, run, range(first, min(first + STEPS_PER_REQUEST, count)))
    return run, (_num_bytes(server) - before) / count


def _num_bytes(server: Server) -> int:
    return sum(table_sizes(server.engine.url.render_as_string(hide_password=False)).values())


def _curve(server: Server, run: str, num_steps: int) -> float:
    """Seconds for the loss of the whole run."""
    before = server.cpu_seconds()
    command = [str(server.python), "-c", CURVE_CODE, server.url, run, str(num_steps)]
    done = subprocess.run(command, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True, check=True)
    return server.cpu_seconds() - before + float(done.stdout)


def _fill(server: Server, experiment: str, count: int) -> None:
    """A sweep of so many runs over five learning rates, each with 16 params, a tag and a metric."""
    templates = [server.new_run(number, experiment) for number in range(NUM_TEMPLATES)]
    for number, run in enumerate(templates):
        params = [{"key": f"size_{name}", "value": str(number % 7)} for name in range(15)]
        params.append({"key": "lr", "value": str(10.0 ** -(number % 5))})
        loss = {"key": "loss", "value": 2.0 + number / 50, "timestamp": 0, "step": 199}
        tags = [{"key": "set", "value": str(number)}]
        server.post("/runs/log-batch", {"run_id": run, "params": params, "tags": tags, "metrics": [loss]})
    _copy(server, templates, count // NUM_TEMPLATES - 1)


def _copy(server: Server, runs: Sequence[str], times: int) -> None:
    """Copy the rows of these runs so many times, and let the database look at its tables."""
    copies = (
        "CREATE TEMP TABLE copies AS SELECT run_uuid AS of, md5(run_uuid || number) AS copy, number"
        " FROM runs, generate_series(1, :times) AS number WHERE run_uuid = ANY(:runs)"
    )
    with server.engine.begin() as connection:
        connection.execute(sa.text(copies), {"times": times, "runs": list(runs)})
        for table in TABLES:
            columns = [each["name"] for each in sa.inspect(connection).get_columns(table) if each["name"] != "run_uuid"]
            chosen = ", ".join(
                "start_time + 1000 * number" if column == "start_time" else f'"{column}"' for column in columns
            )
            names = ", ".join(f'"{column}"' for column in columns)
            rows = f"SELECT copy, {chosen} FROM {table} JOIN copies ON run_uuid = of"
            connection.execute(sa.text(f"INSERT INTO {table} (run_uuid, {names}) {rows}"))
        connection.execute(sa.text("DROP TABLE copies"))
    with server.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("VACUUM (ANALYZE)"))


def _deletion(server: Server, sizes: Sizes) -> float:
    """Seconds for marking the runs of an experiment as deleted, and for the command that deletes what is marked."""
    experiment = server.post("/experiments/create", {"name": "old"})["experiment_id"]
    run = server.new_run(experiment=experiment)
    for first in range(0, sizes.deleted_steps, STEPS_PER_REQUEST):
        _log(server, run, range(first, min(first + STEPS_PER_REQUEST, sizes.deleted_steps)))
    _copy(server, [run], sizes.deleted - 1)
    with server.engine.connect() as connection:
        chosen = sa.text("SELECT run_uuid FROM runs WHERE experiment_id = :experiment")
        runs = connection.scalars(chosen, {"experiment": int(experiment)}).all()
    assert len(runs) == sizes.deleted
    before = server.cpu_seconds()
    for each in runs:
        server.post("/runs/delete", {"run_id": each})
    command = [str(server.python), "-m", "mlflow", "gc", "--backend-store-uri", server.store, "--older-than", "0d"]
    command += ["--tracking-uri", server.url]
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mlflow gc ended with {done.returncode}: {done.stderr[-300:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = server.cpu_seconds() - before + used.ru_utime - waited.ru_utime + used.ru_stime - waited.ru_stime
    with server.engine.connect() as connection:
        left = connection.scalar(sa.text("SELECT count(*) FROM runs WHERE experiment_id = :e"), {"e": int(experiment)})
    if left:
        raise RuntimeError(f"mlflow gc has left {left} of {sizes.deleted} runs")
    return spent
