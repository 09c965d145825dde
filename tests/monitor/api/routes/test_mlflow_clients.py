"""Unmodified clients of MLflow at a real collector: the library itself, and the loggers that are built on it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from lossguard.vocabulary.protocol import API
from tests.reliability.collector import CollectorProcess, running
from tests.waiting import wait_for

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[4]
TOKEN = "s3cret-of-16-chr"


def collector_in(folder: Path) -> CollectorProcess:
    return CollectorProcess(f"sqlite:///{folder}/l.db", folder / "log", LOSSGUARD_TOKEN=TOKEN)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a collector."""
    one = collector_in(tmp_path_factory.mktemp("collector"))
    with running(one, path="/healthz"):
        yield one.url


def run_script(script: str, collector: str, folder: Path) -> list[dict[str, Any]]:
    """Run a user's script, which knows nothing of Lossguard: the runs of the collector, the newest first."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": collector, "MLFLOW_TRACKING_TOKEN": TOKEN}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs: list[dict[str, Any]] = ask(collector, f"{API}/runs")
    return runs


def ask(collector: str, path: str) -> Any:
    answer = urllib3.request("GET", f"{collector}{path}", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200, answer.data
    return json.loads(answer.data)


PLAIN = """
import math, mlflow
mlflow.set_experiment("plain")
with mlflow.start_run(run_name="first"):
    mlflow.log_params({"lr": 0.1, "layers": 12})
    mlflow.set_tag("team", "blue")
    for step in range(60):
        loss = math.nan if step == 50 else 3 - step / 100 + 0.01 * math.sin(step * 2.1)
        mlflow.log_metric("train/loss", loss, step=step)
        mlflow.log_metric("grad_norm", 1.0, step=step)
    for step in range(60, 80):
        mlflow.log_metrics({"train/loss": 2.4, "grad_norm": 1.0}, step=step, synchronous=False)
    mlflow.flush_async_logging()
    mlflow.log_metric("test/accuracy", 0.5)
"""


def test_an_unmodified_client_logs_a_run_that_is_detected_on(collector: str, tmp_path: Path) -> None:
    run = next(run for run in run_script(PLAIN, collector, tmp_path) if run["project"] == "plain")
    assert (run["name"], run["state"]) == ("first", "finished")
    assert {name: run["config"][name] for name in ("lr", "layers")} == {"lr": "0.1", "layers": "12"}
    assert run["config"]["tags"]["team"] == "blue"
    shown = ask(collector, f"{API}/runs/{run['id']}")
    assert shown["steps_effective"] == 80
    assert set(shown["metrics"]) == {"loss", "perplexity", "grad_norm", "test/accuracy"}
    kinds = [(one["kind"], one["onset_step"]) for one in ask(collector, f"{API}/runs/{run['id']}/incidents")]
    assert kinds == [("nonfinite", 50)]


TRAINER = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=32, n_positions=16))
rows = [{"input_ids": torch.randint(0, 32, (16,)), "labels": torch.randint(0, 32, (16,))} for _ in range(64)]
arguments = TrainingArguments(
    "out", max_steps=24, logging_steps=2, per_device_train_batch_size=2, report_to=["mlflow"], run_name="tiny",
    save_strategy="no", use_cpu=True, disable_tqdm=True,
)
Trainer(model, arguments, train_dataset=rows).train()
"""


ACCELERATE = """
from accelerate import Accelerator
accelerator = Accelerator(log_with="mlflow", cpu=True)
accelerator.init_trackers("accelerate", config={"lr": 0.1}, init_kwargs={"mlflow": {"run_name": "tiny"}})
for step in range(10):
    accelerator.log({"train_loss": 3.0 - step / 10}, step=step)
accelerator.end_training()
"""


LIGHTNING = """
import torch, lightning as L
from lightning.pytorch.loggers import MLFlowLogger
class Tiny(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"width": 4})
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, _):
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
trainer = L.Trainer(
    max_steps=20, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
    enable_checkpointing=False, callbacks=[L.pytorch.callbacks.LearningRateMonitor()],
    logger=MLFlowLogger(experiment_name="lightning", run_name="tiny"),
)
trainer.fit(Tiny(), torch.utils.data.DataLoader(torch.randn(64, 4), batch_size=2))
"""


@pytest.fixture(scope="module")
def reported(collector: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The runs of the three frameworks, by project: one process, because their imports take seconds."""
    runs = run_script(TRAINER + ACCELERATE + LIGHTNING, collector, tmp_path_factory.mktemp("frameworks"))
    return {run["project"]: run for run in runs}


def test_the_trainer_of_hugging_face_reports_through_its_own_callback(collector: str, reported: dict[str, Any]) -> None:
    run = reported["Default"]
    assert (run["name"], run["state"]) == ("tiny", "finished")
    assert run["config"]["logging_steps"] == "2"

    def num_steps() -> int:
        return int(ask(collector, f"{API}/runs/{run['id']}")["steps_effective"])

    # The callback logs asynchronously: the last rows may come at the exit of the process, after the end of the run.
    wait_for(lambda: num_steps() >= 12, seconds=60, what="the rows that the client sent at its exit")
    shown = ask(collector, f"{API}/runs/{run['id']}")
    assert {"loss", "grad_norm", "lr"} <= set(shown["metrics"])
    assert shown["steps_effective"] == 12
    assert len(shown["segments"]) == 1


def test_the_logger_of_lightning_reports(collector: str, reported: dict[str, Any]) -> None:
    run = reported["lightning"]
    assert (run["name"], run["state"]) == ("tiny", "finished")
    assert run["config"]["width"] == "4"
    shown = ask(collector, f"{API}/runs/{run['id']}")
    assert {"loss", "lr"} <= set(shown["metrics"])
    assert shown["newest_step"]["metrics"]["loss"] is not None
    assert shown["steps_effective"] == 20


def test_the_tracker_of_accelerate_reports(collector: str, reported: dict[str, Any]) -> None:
    run = reported["accelerate"]
    assert (run["name"], run["state"], run["config"]["lr"]) == ("tiny", "finished", "0.1")
    shown = ask(collector, f"{API}/runs/{run['id']}")
    assert shown["newest_step"]["metrics"]["loss"] == pytest.approx(2.1)
    assert shown["steps_effective"] == 10


STEADY = """
import mlflow
mlflow.set_experiment("steady")
with mlflow.start_run():
    for step in range(80):
        for key in ("loss", "grad_norm", "accuracy"):
            mlflow.log_metric(key, float(step), step=step)
"""


def test_a_collector_that_is_killed_loses_nothing_that_it_has_acknowledged(tmp_path: Path) -> None:
    """The client sends what was not acknowledged again, also what was stored just before the kill."""
    one = collector_in(tmp_path)
    url = one.url
    environment = os.environ | {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": TOKEN}
    environment |= {"PYTHONWARNINGS": "ignore", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}

    def num_steps() -> int:
        return sum(ask(url, f"{API}/runs/{run['id']}")["steps_consumed"] for run in ask(url, f"{API}/runs"))

    command = [sys.executable, "-c", STEADY]
    with running(one, path="/healthz"), subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as script:
        wait_for(lambda: num_steps() > 20, seconds=60, what="steps of the client")
        one.kill()
        one.start()
        assert script.wait(240) == 0
        (run,) = ask(url, f"{API}/runs")
        assert run["state"] == "finished"
        shown = ask(url, f"{API}/runs/{run['id']}")
        assert (len(shown["segments"]), shown["steps_effective"], shown["steps_consumed"]) == (1, 80, 80)
        for name in ("loss", "grad_norm", "accuracy"):
            series = ask(url, f"{API}/runs/{run['id']}/series?metric={name}&points=200")
            assert (series["first_step"], series["last"]) == (list(range(80)), list(map(float, range(80))))
