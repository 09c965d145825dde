"""Real trackers in unchanged scripts, each in a process of `lossguard launch`."""

import json
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.lossguard.launch.launching import SECONDS, Launching

pytestmark = pytest.mark.system


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


WANDB = """
import sys, wandb
run = wandb.init(project="gpt", name="base", config={"lr": 0.1, "api_key": "s3cret"}, tags=["night"], mode=sys.argv[1])
results = [run.log({"train/loss": 2.0 - step / 10, "detail": {"a": step}}) for step in range(5)]
run.log({"lr": 0.1}, step=5)
run.log({"train/loss": float("nan")}, step=5)
run.log({"lr": 0.2}, step=6, commit=False)
wandb.log({"image": wandb.Image(__import__("numpy").zeros((2, 2))), "train/loss": float("inf")})
try:
    run.log("no mapping")
except Exception as problem:
    print(results, type(problem).__name__)
run.finish()
"""


@needs("wandb", "numpy", "PIL")
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_wandb(launching: Launching, mode: str) -> None:
    ended = launching.run(WANDB, mode, options=("--run-id", "r"))
    assert ended.code == 0, ended.err
    if mode == "offline":
        assert ended.out == "[None, None, None, None, None] TypeError\n"
    assert launching.metric("loss") == {**{step: 2.0 - step / 10 for step in range(5)}, 5: "NaN", 6: "Infinity"}
    assert launching.metric("detail.a") == {step: step for step in range(5)}
    assert launching.metric("lr") == {5: 0.1, 6: 0.2}
    registered = launching.collector.runs["r"]
    assert (registered["project"], registered["name"]) == ("gpt", "base")
    assert registered["config"] == {"lr": 0.1, "api_key": "***", "tags": ["night"]}


FALLS = {step: 2.0 - step for step in range(4)}
TRACKERS: dict[str, tuple[str, dict[str, dict[int, float]], tuple[str, str, dict[str, Any]]]] = {
    "tensorboard": (
        """
import torch
from torch.utils.tensorboard import SummaryWriter
train, held_out = SummaryWriter("out/train"), SummaryWriter("out/validation")
for step in range(4):
    train.add_scalar("loss", torch.tensor(2.0 - step), step)
    train.add_scalar("grad_norm", 0.5, global_step=step)
    train.add_scalars("tokens", {"code": 1, "text": 2}, step)
    held_out.add_scalar("loss", 9.0, step)
train.add_hparams({"width": 64}, {"final": 1.0})
train.close()
""",
        {
            "grad_norm": dict.fromkeys(range(4), 0.5),
            "tokens/code": dict.fromkeys(range(4), 1),
            "held_out_loss": dict.fromkeys(range(4), 9.0),
            "final": {},
        },
        ("work", "r", {"width": 64}),
    ),
    "tensorboardX": (
        """
from tensorboardX import SummaryWriter
with SummaryWriter("out") as writer:
    for step in range(4):
        writer.add_scalar("train/loss", 2.0 - step, step)
        writer.add_scalar("without a step", float(step))
    writer.add_hparams({"width": 64}, {"final": 1.0})
""",
        {"without a step": {step: float(step) for step in range(4)}},
        ("work", "r", {"width": 64}),
    ),
    "mlflow": (
        """
import mlflow
mlflow.set_tracking_uri("file:mlruns")
mlflow.set_experiment("gpt")
with mlflow.start_run(run_name="base"):
    mlflow.log_params({"width": 64})
    for step in range(3):
        mlflow.log_metrics({"loss": 2.0 - step, "lr": 0.1}, step=step)
        mlflow.log_metric("held", float(step))
    mlflow.log_metric("loss", -1.0, step=3, synchronous=False)
""",
        {"held": {step: float(step) for step in range(3)}},
        ("gpt", "base", {"width": "64"}),
    ),
    "trackio": (
        """
import trackio
trackio.init(project="gpt", name="base", config={"width": 64}, embed=False)
for step in range(4):
    trackio.log({"train/loss": 2.0 - step, "lr": 0.1})
trackio.log({"lr": 0.2}, step=10)
trackio.finish()
""",
        {"lr": dict.fromkeys(range(4), 0.1) | {10: 0.2}},
        ("gpt", "base", {"width": 64}),
    ),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in TRACKERS])
def test_what_a_tracker_is_given_is_recorded(launching: Launching, name: str) -> None:
    script, metrics, described = TRACKERS[name]
    without_fake = launching.environment()["PYTHONPATH"].partition(":")[2]
    variables = {"PYTHONPATH": without_fake, "TRACKIO_DIR": str(launching.folder / "tracked")}
    ended = launching.run(script, options=("--run-id", "r"), MLFLOW_ALLOW_FILE_STORE="true", **variables)
    assert ended.code == 0, ended.err
    assert {metric: launching.metric(metric) for metric in ("loss", *metrics)} == {"loss": FALLS, **metrics}
    registered = launching.collector.runs["r"]
    assert (registered["project"], registered["name"], registered["config"]) == described
    assert len(launching.collector.segments) == 1


HUGGING_FACE = """
import sys, torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
data = [{"input_ids": torch.arange(8) % 7, "labels": torch.arange(8) % 7} for _ in range(32)]
model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1))
arguments = TrainingArguments(
    "out", max_steps=12, logging_steps=2, eval_strategy="steps", eval_steps=6, per_device_train_batch_size=2,
    report_to=sys.argv[1:], run_name="base", save_strategy="no", use_cpu=True, disable_tqdm=True, learning_rate=1e-2,
)
Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4]).train()
"""


@needs("transformers", "wandb", "tensorboard")
@pytest.mark.parametrize("trackers", [("tensorboard",), ("wandb", "tensorboard")])
def test_the_trainer_of_hugging_face(launching: Launching, trackers: tuple[str, ...]) -> None:
    ended = launching.run(
        HUGGING_FACE, *trackers, options=("--run-id", "r", "--project", "gpt"), TENSORBOARD_LOGGING_DIR="tb"
    )
    assert ended.code == 0, ended.err
    assert list(launching.metric("loss")) == [2, 4, 6, 8, 10, 12]
    assert list(launching.metric("grad_norm")) == [2, 4, 6, 8, 10, 12]
    assert list(launching.metric("lr")) == [2, 4, 6, 8, 10, 12]
    assert len(launching.metric("held_out_loss")) == 2
    assert len(launching.collector.segments) == 1
    config = launching.collector.runs["r"]["config"]
    assert (config["logging_steps"], config["logging_nan_inf_filter"]) == (2, True)


@needs("lightning", "tensorboard", "wandb")
def test_the_loggers_of_lightning(launching: Launching) -> None:
    ended = launching.run(
        """
import torch, lightning
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

class Model(lightning.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

loggers = [TensorBoardLogger("out"), WandbLogger(project="gpt", offline=True), CSVLogger("out")]
trainer = lightning.Trainer(
    max_steps=10, log_every_n_steps=2, logger=loggers, accelerator="cpu", enable_progress_bar=False,
    enable_checkpointing=False, enable_model_summary=False,
)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(40, 4), batch_size=2))
""",
        options=("--run-id", "r"),
    )
    assert ended.code == 0, ended.err
    assert list(launching.metric("loss")) == [1, 3, 5, 7, 9]
    assert len(launching.collector.segments) == 1
    assert launching.collector.runs["r"]["config"]["width"] == 4


@needs("torch")
def test_workers_of_torchrun_are_one_run(launching: Launching) -> None:
    (launching.folder / "train.py").write_text(
        "import os, trackio; run = trackio.Run()\n"
        "for step in range(5): run.log({'loss': float(os.environ['RANK']), 'world': int(os.environ['WORLD_SIZE'])})"
    )
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    process = launching.start(sys.executable, *torchrun, "train.py", options=("--run-id", "outside"))
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert launching.metric("loss") == dict.fromkeys(range(5), 0.0)
    assert json.dumps(launching.collector.runs["outside"]["command"]).count("torch.distributed.run") == 1
    assert launching.collector.finished == ["finished"]
