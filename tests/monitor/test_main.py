"""The collector's commands as a user runs them."""

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import urllib3

from demo.processes import Processes
from monitor.__main__ import _listen
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.ingestion.test_detection_state import noise, obey, train_until_nan
from tests.ports import free_port


def monitor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        timeout=60,
    )


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "logs") as group:
        yield group


@pytest.mark.slow
def test_serve_makes_its_database_and_answers(processes: Processes, tmp_path: Path) -> None:
    port = free_port()
    environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/new/folder/l.db"}
    process = processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
    processes.wait_until_up("collector", f"http://127.0.0.1:{port}/readyz")
    with urllib3.PoolManager() as http:
        paths = http.request("GET", f"http://127.0.0.1:{port}/openapi.json").json()["paths"]
    assert "/api/v1/runs/{run_id}/reports" in paths
    process.terminate()
    assert process.wait(20) in (0, -15)


@pytest.mark.slow
@pytest.mark.parametrize(("trusted", "told"), [("", "9.9.9.9"), ("192.0.2.0/24", "127.0.0.1")])
def test_a_proxy_says_who_asks_when_it_is_trusted(
    processes: Processes, tmp_path: Path, trusted: str, told: str
) -> None:
    port = free_port()
    environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/l.db", "LOSSGUARD_TOKEN": "x"}
    environment["LOSSGUARD_TRUSTED_PROXIES"] = trusted
    processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
    processes.wait_until_up("collector", f"http://127.0.0.1:{port}/healthz")
    url, claimed = f"http://127.0.0.1:{port}/api/v1/runs", {"x-forwarded-for": "9.9.9.9"}
    assert urllib3.request("GET", url, headers=claimed, retries=False).status == 401
    assert f"no token from {told} for GET" in processes.log_of("collector").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("serve", "--host", "0.0.0.0"), {"LOSSGUARD_DATABASE_URL": "sqlite://"}, "LOSSGUARD_TOKEN"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "mysql://x/y"}, "postgresql"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "nonsense"}, "sqlite:///"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "sqlite:////proc/nowhere/x.db"}, "/proc/nowhere"),
        (("serve",), {"LOSSGUARD_MAX_REPORT_BYTES": "many"}, "LOSSGUARD_MAX_REPORT_BYTES"),
        (("serve",), {"LOSSGUARD_TRUSTED_PROXIES": "*"}, "LOSSGUARD_TRUSTED_PROXIES"),
        (("backtest", "missing.csv"), {}, "missing.csv"),
        (("backtest", "--run", "r1"), {"LOSSGUARD_DATABASE_URL": "sqlite:///no/store.db"}, "there is no store at no"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    port = ("--port", str(free_port())) if arguments[0] == "serve" else ()
    done = monitor(*arguments, *port, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence_and_exit_code_2() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = monitor("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "choose another with --port" in done.stderr


@pytest.mark.slow
def test_backtest_prints_one_json_object_a_line(tmp_path: Path) -> None:
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)] + ["300,nan", "301,nan"]
    curve = tmp_path / "curve.csv"
    curve.write_text("step,loss\n" + "\n".join(rows))
    done = monitor("backtest", str(curve), str(curve), "--json")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert first["steps"] == 302
    (incident,) = first["incidents"]
    assert (incident["kind"], incident["detected_step"]) == ("nonfinite", 300)
    assert incident["action"]["kind"] == "rollback"
    assert set(incident) >= {
        *("kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome", "action")
    }


@pytest.mark.slow
def test_backtest_of_a_stored_run_judges_its_live_line(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        (order,) = train_until_nan(trainer)["orders"]
        losses = [*noise(3, 150), None, math.inf, *noise(4, 148)]
        trainer.report(obey(trainer, order), range(200, 500), {"loss": losses})
    store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/lossguard.db"}
    told = json.loads(monitor("backtest", "--run", "r1", "--json", **store).stdout)
    (incident,) = told["incidents"]
    assert (told["file"], told["steps"]) == ("r1", 500)
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 351, 351)


@pytest.mark.slow
def test_backtest_takes_its_parameters_and_compares_with_published_rules(tmp_path: Path) -> None:
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)] + ["300,nan"]
    curve = tmp_path / "curve.csv"
    curve.write_text("step,loss\n" + "\n".join(rows))
    done = monitor("backtest", str(curve), "--json", "--set", "min_depth=250", "--set", "false_alarms_per_10k=2")
    assert json.loads(done.stdout)["incidents"][0]["action"]["rewind_to"] == 0
    done = monitor("backtest", str(curve), "--compare", COLUMNS="200")
    assert "trainscope" in done.stdout
    for bad in ("min_depth=x", "min_depth=0", "depth=3", "min_depth"):
        done = monitor("backtest", str(curve), "--set", bad)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert bad in done.stderr


def test_the_listener_names_its_protocol_so_that_answers_do_not_wait_for_a_delayed_ack() -> None:
    """A report took 80 ms in place of 30: asyncio turns Nagle's algorithm off only on sockets that say they are TCP."""
    listener = _listen("127.0.0.1", free_port())
    assert listener.proto == socket.IPPROTO_TCP
    listener.close()
