import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import lossguard
from lossguard.lightning import Watch, watch
from tests.lossguard.lightning.fitting import LoggingRun, Module, Numbers, assert_same, fit, shuffled

pytestmark = pytest.mark.slow


def test_every_step_is_reported_as_the_module_computed_it(tmp_path: Path) -> None:
    norms = []

    class Measuring(Module):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            norms.append(torch.nn.utils.get_total_norm([each.grad for each in self.parameters()]).item())  # type: ignore[misc]

    run = LoggingRun()
    settings: dict[str, Any] = {"max_epochs": 3, "accumulate_grad_batches": 2, "gradient_clip_val": 0.01}
    module = fit(tmp_path, shuffled(44), Watch(run), module=Measuring(), validation=True, **settings)
    losses = [sum(each[1] for each in module.seen[step]) / len(module.seen[step]) for step in range(18)]
    assert [step for step, _, _ in run.logged] == list(range(18))
    assert [metrics["loss"] for _, _, metrics in run.logged] == pytest.approx(losses, rel=1e-7)
    assert [metrics["log_z"] for _, _, metrics in run.logged] == pytest.approx([2 * loss for loss in losses], rel=1e-7)
    assert [metrics["grad_norm"] for _, _, metrics in run.logged] == norms
    validations = [event[3] for event in module.events if event[0] == "validation"]
    assert {step: metrics["held_out_loss"] for step, _, metrics in run.logged if "held_out_loss" in metrics} == {
        5: validations[0],
        11: validations[1],
        17: validations[2],
    }
    assert [name for name, seconds in run.durations if seconds > 0] == ["evaluation_seconds"] * 3
    assert run.announced == [None]
    plain = fit(tmp_path, shuffled(44), validation=True, **settings)
    assert_same(module, plain)
    assert module.events == plain.events


def test_a_nan_is_reported_as_nan(tmp_path: Path) -> None:
    class Broken(Module):
        def loss(self, batch: Tensor) -> Tensor:
            return super().loss(batch) * (math.nan if self.trainer.global_step == 2 else 1.0)

    run = LoggingRun()
    fit(tmp_path, shuffled(40), Watch(run), module=Broken(), max_steps=3)
    assert [math.isnan(metrics["loss"]) for _, _, metrics in run.logged] == [False, False, True]


def test_the_run_knows_whether_the_loss_is_scaled(tmp_path: Path) -> None:
    class Scaled(Module):
        def on_fit_start(self) -> None:
            self.trainer.precision_plugin.scaler = "of float16, which needs a GPU"  # type: ignore[attr-defined]

    for kind in (Module, Scaled):
        run = LoggingRun()
        fit(tmp_path, shuffled(40), Watch(run), module=kind(), max_steps=1)
        assert run.is_scaled == (kind is Scaled)


def test_a_norm_of_a_part_of_the_gradients_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "has_whole_gradients", lambda strategy: False)  # as with FSDP, which needs a GPU
    run = LoggingRun()
    fit(tmp_path, shuffled(40), Watch(run), max_steps=3)
    assert [set(metrics) & {"loss", "lr", "grad_norm"} for _, _, metrics in run.logged] == [{"loss", "lr"}] * 3
    assert caplog.text.count("grad_norm is not reported: with SingleDeviceStrategy") == 1


@pytest.mark.system
def test_several_optimizers_are_only_watched(tmp_path: Path) -> None:
    class Manual(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
            loss = self.loss(batch)
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.step()
            return {"loss": loss.detach()}

        def on_train_epoch_end(self) -> None: ...

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.net[0], self.net[2])], []

    run = LoggingRun()
    fit(tmp_path, shuffled(40), Watch(run), module=Manual(), max_epochs=1)
    assert [step for step, _, _ in run.logged] == list(range(1, 20, 2))  # Lightning counts a step of each optimizer
    assert all({"loss", "lr", "grad_norm"} <= metrics.keys() for _, _, metrics in run.logged)


def test_an_error_in_a_report_does_not_reach_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Watch):
        def _means(self, trainer: Any) -> Any:
            raise RuntimeError("ours")

    module = fit(tmp_path, shuffled(40), Broken(LoggingRun()), max_steps=5)
    assert len(module.seen) == 5
    assert caplog.text.count("on_train_batch_end failed, and training continues: RuntimeError('ours')") == 1


@pytest.mark.system
def test_tokens_are_counted_and_the_settings_become_configuration(tmp_path: Path) -> None:
    class Language(Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            return super().training_step(batch["input_ids"], batch_idx)

    run = lossguard.init(project="p", directory=tmp_path / "spool", mode="offline")
    samples: Any = [{"input_ids": Numbers(40)[index]} for index in range(40)]
    loader: DataLoader[Any] = DataLoader(samples, batch_size=4)
    fit(tmp_path, loader, Watch(run), module=Language(3), max_steps=3, accumulate_grad_batches=2)
    run.finish()
    assert run.directory is not None
    text = "".join(file.read_text() for file in run.directory.glob("*.spool"))
    assert '"tokens":64' in text
    assert '"tokens":192' in text
    assert '"hyperparameters":{"depth":3}' in text
    assert '"num_parameters":280' in text
    assert '"accumulate_grad_batches":2' in text
    assert '"total_steps":3' in text
