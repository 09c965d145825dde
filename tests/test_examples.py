"""The examples run, on a run as the collector stores it."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from benchmarks.harness import collector
from examples.restart_loop import batch_at
from lossguard import Ledger, Skip
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests import fork_server
from tests.lossguard.collectors import FakeCollector, serving
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, train_until_nan
from tests.waiting import wait_for

pytestmark = pytest.mark.slow(10)

EXAMPLES = Path(__file__).parents[1] / "examples"
ANALYSIS = EXAMPLES / "analysis.py"


@pytest.mark.system
def test_a_hugging_face_trainer_gets_past_its_fault(tmp_path: Path) -> None:
    command = [sys.executable, str(ANALYSIS.with_name("hf_trainer.py")), "--steps", "340"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loss_spike, onset at step 20" in done.stdout


@pytest.mark.system
def test_a_loop_on_accelerate_gets_past_its_fault(tmp_path: Path) -> None:
    command = [sys.executable, str(ANALYSIS.with_name("accelerate_loop.py")), "--steps", "340"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loss_spike, onset at step 200" in done.stdout


def study(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{folder}/lossguard.db"}
    return fork_server.run("examples.analysis", *given, env=os.environ | store, cwd=folder)


def test_the_analysis_of_a_rolled_back_run_prints_its_cost_and_draws_it(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        (order,) = train_until_nan(trainer)["orders"]
        losses = {"loss": noise(3, 300), "step_seconds": [0.5] * 300}
        trainer.report(obey(trainer, order), range(200, 500), losses)
    done = study(tmp_path, "r1", "--plot", "study.html")
    assert done.returncode == 0, done.stderr
    assert "steps consumed 601, effective 500, lost 101 (16.8%)" in done.stdout
    assert "nonfinite" in done.stdout
    assert "losses that were not finite: {'NaN': 1}" in done.stdout
    assert "verified" in done.stdout
    assert "live line" in (tmp_path / "study.html").read_text(encoding="utf-8")


def test_the_analysis_over_a_collector_is_that_over_its_store(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        (order,) = train_until_nan(trainer)["orders"]
        trainer.report(obey(trainer, order), range(200, 500), {"loss": noise(3, 300)})
    with collector(f"sqlite:///{tmp_path}/lossguard.db") as (url, _):
        over_http, unknown = study(tmp_path, "r1", "--url", url), study(tmp_path, "nope", "--url", url)
    assert over_http.returncode == 0, over_http.stderr
    assert over_http.stdout == study(tmp_path, "r1").stdout
    assert "nonfinite" in over_http.stdout
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"the collector at {url} answers 404 there is no run 'nope' (at path)\n",
    )


def test_each_rollback_is_shown_with_its_own_incident(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        segment = trainer.open("a")
        checkpoints = {"restorable_steps": CHECKPOINTS}
        trainer.report(segment, range(300), {"loss": noise(1, 300)}, **checkpoints)
        (first,) = trainer.report(segment, [300, 301], {"loss": [None, math.inf]})["orders"]
        segment = obey(trainer, first)
        trainer.report(segment, range(200, 300), {"loss": noise(2, 100)})
        (second,) = trainer.report(segment, [300, 301, 302], {"loss": [None, 7.5, math.nan]})["orders"]
        segment = obey(trainer, second, key="c")
        trainer.report(segment, range(second["rewind_to"], 500), {"loss": noise(3, 500 - second["rewind_to"])})
        http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 300})
        (by_hand,) = trainer.report(segment, [], {})["orders"]
        trainer.report(obey(trainer, by_hand, key="d"), [300], {"loss": [3.0]})
    done = study(tmp_path, "r1")
    assert done.returncode == 0, done.stderr
    _, shown = done.stdout.split("median loss around the interventions")
    worst, non_finite = zip(*(line.split()[-2:] for line in shown.splitlines()[2:5]), strict=True)
    assert (worst, non_finite) == (("inf", "7.5", "NaN"), ("1", "1", "0"))  # the last one by hand: without an incident


@pytest.mark.parametrize(
    ("url", "sentence"), [("sqlite:///no/store.db", "there is no store at"), ("x", "not a database URL")]
)
def test_a_missing_store_is_one_sentence_and_none_is_created(tmp_path: Path, url: str, sentence: str) -> None:
    done = study(tmp_path, "r1", "--url", url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.system
def test_a_module_of_lightning_is_rolled_back_past_its_bad_batches(tmp_path: Path) -> None:
    command = [sys.executable, str(ANALYSIS.with_name("lightning_module.py")), "--steps", "320"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"verified\W+yes", done.stdout), done.stdout


@pytest.mark.system
def test_the_restart_loop_ends_with_the_weights_of_a_plain_run_of_the_filtered_order(tmp_path: Path) -> None:
    with serving(FakeCollector()) as collector:
        restart_loop(collector, tmp_path)


def plain_weights(num_steps: int, skip: Skip) -> dict[str, torch.Tensor]:
    """The weights after so many steps in one process, on the same batches without the skipped ones."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(num_steps):
        inputs, targets = batch_at(Ledger([skip]).nth_free(step))
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / num_steps)
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.state_dict()


def restart_loop(collector: FakeCollector, folder: Path) -> None:
    num_steps, skip = 2000, Skip(30, 70)
    ours = {"LOSSGUARD_URL": collector.url, "LOSSGUARD_DIR": str(folder / "lossguard"), "OMP_NUM_THREADS": "1"}
    options = ["--restart-with", "script", "--run-id", "r", "--project", "p"]
    script = [str(EXAMPLES / "restart_loop.py"), "--out", str(folder / "out"), "--steps", str(num_steps)]
    launch = [sys.executable, "-m", "lossguard", "launch", *options, "--", sys.executable, *script]
    with subprocess.Popen(launch, cwd=EXAMPLES.parent, env=os.environ | ours) as process:
        wait_for(lambda: (0, 100) in collector.rows, seconds=120, what="step 100 at the collector")
        order = {"rewind_to": 30, "skip_from": skip.skip_from, "skip_to": skip.skip_to}
        collector.order(id=1, key="k1", kind="rollback", **order)
        assert process.wait(timeout=120) == 0
    assert [(each["reason"], each["fork_step"]) for each in collector.segments] == [("start", 0), ("rollback", 25)]
    saved = torch.load(folder / "out" / f"{num_steps}.pt")["model"]
    assert all(torch.equal(saved[name], weight) for name, weight in plain_weights(num_steps, skip).items())
