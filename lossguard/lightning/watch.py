"""The callback that reports: every optimizer step with its loss, gradient norm and learning rate."""

import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lossguard.lightning.framework import Callback, LightningModule, Precision, Trainer, has_whole_gradients
from lossguard.run.run import Run, check_run
from lossguard.vocabulary.errors import ConfigurationError, LogOnce, never_raises
from lossguard.vocabulary.metrics import EVALUATION_SECONDS

MEANS = ("log_z", "z_loss")
"""Means over the micro-batch that the dictionary of `training_step` may hold besides the loss."""

SETTINGS = (
    *("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("precision", "world_size", "val_check_interval", "check_val_every_n_epoch"),
    *("limit_train_batches", "num_training_batches"),
)
"""Attributes of the trainer that become part of the configuration."""


class Watch(Callback):
    """Reports each optimizer step of `trainer.fit` to `run`: it changes nothing, and gets no orders.

    `loss` is the mean of what `training_step` returns, over micro-batches and ranks, as it is (a NaN is NaN);
    `grad_norm` is the L2 norm before clipping, on one device and with DDP; `lr` that of the first parameter group;
    `log_z` and `z_loss` are what the dictionary that `training_step` returns has under these names; `tokens` counts the
    `input_ids` of the batches, where they have them. No device is waited for. The settings of the trainer, the
    module's hyperparameters and its number of parameters become part of the run's configuration.

    A validation is reported as `held_out_loss` of the step before it: the logged metric `held_out`, by default
    `val_loss`, or else what a callback monitors with mode "min" if its name contains "val".
    """

    def __init__(self, run: Run, *, held_out: str | None = None) -> None:
        check_run(run)
        self.run = run
        self.log_once = LogOnce(quiet=run.rank > 0)
        self._held_out = held_out
        self._num_steps = 0  # of the optimizer, that were reported
        self.tokens: int | Tensor | None = 0
        """Tokens so far, over all ranks; None if it is not known how many there were before."""
        self._pending: tuple[int, dict[str, Any]] | None = None  # a step whose validation may come yet
        self._validation_began = 0.0
        self._forget()

    def _forget(self) -> None:
        """Forget the sums and values of one optimizer step."""
        self._sums: dict[str, Tensor] = {}  # over the micro-batches
        self._num_micro_batches = self._num_tokens = 0
        self._of_step: dict[str, Any] = {}  # gradient norm and learning rate

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        ours = [type(each).__name__ for each in trainer.callbacks if isinstance(each, Watch)]  # type: ignore[attr-defined]
        if len(ours) > 1:
            raise ConfigurationError(f"the Trainer has the callbacks {' and '.join(ours)}: give it one of them")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_steps = trainer.global_step
        self.tokens = None if trainer.global_step else 0
        self._forget()
        self.announce()
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            self.run.scales_loss()
        self._describe(trainer, pl_module)

    def announce(self) -> None:
        """Say that the run is watched."""
        self.run.announce(self.log_once.warn)

    @never_raises
    def _describe(self, trainer: Trainer, pl_module: LightningModule) -> None:
        num_parameters = sum(each.numel() for each in pl_module.parameters())
        described = {
            "trainer": {name: getattr(trainer, name) for name in SETTINGS},
            "hyperparameters": dict(pl_module.hparams),
            "model": {"class": type(pl_module).__name__, "num_parameters": num_parameters},
        }
        steps = trainer.estimated_stepping_batches
        self.run.add_config(described, total_steps=int(steps) if 0 <= steps < float("inf") else None)

    @never_raises
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._of_step["lr"] = optimizer.param_groups[0]["lr"]
        if not has_whole_gradients(trainer.strategy):
            name = type(trainer.strategy).__name__
            self.log_once.warn_once("grad_norm", f"grad_norm is not reported: with {name} a rank has not all gradients")
            return
        standard = Precision.clip_grad_by_norm, LightningModule.configure_gradient_clipping
        used = type(trainer.precision_plugin).clip_grad_by_norm, type(pl_module).configure_gradient_clipping
        is_automatic = pl_module.automatic_optimization and standard == used
        if is_automatic and trainer.gradient_clip_val and trainer.gradient_clip_algorithm != "value":
            trainer.precision_plugin.clip_grad_by_norm = self._clip_grad_by_norm  # type: ignore[method-assign]
            return
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        gradients = [each.grad for each in parameters if each.grad is not None]
        self._of_step["grad_norm"] = torch.nn.utils.get_total_norm(gradients)

    def _clip_grad_by_norm(self, optimizer: Any, clip_val: float) -> None:
        """Clip as `Precision.clip_grad_by_norm` does, and keep the norm, which need not be taken twice."""
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._of_step["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, clip_val)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(trainer.precision_plugin).pop("clip_grad_by_norm", None)

    @never_raises
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.flush()

    @never_raises
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._num_micro_batches += 1
        if isinstance(batch, Mapping) and isinstance(ids := batch.get("input_ids"), Tensor):
            self._num_tokens += ids.numel()
        if isinstance(outputs, Tensor):
            outputs = {"loss": outputs}
        for name in ("loss", *MEANS):
            if isinstance(outputs, Mapping) and isinstance(value := outputs.get(name), Tensor):
                value = value.detach()
                self._sums[name] = self._sums[name] + value if name in self._sums else value
        if trainer.global_step > self._num_steps:
            self._num_steps = trainer.global_step
            metrics = self._of_step | self._means(trainer)
            num_tokens = metrics.pop("step_tokens", self._num_tokens)
            if self.tokens is not None and self._num_tokens:
                self.tokens = metrics["tokens"] = self.tokens + num_tokens
            if self.run.batch_index is None:
                metrics["batch_index"] = trainer.global_step - 1  # without a guard, batch follows batch
            self._pending = (trainer.global_step - 1, metrics)
            self._forget()

    def _means(self, trainer: Trainer) -> dict[str, Tensor]:
        """Over micro-batches and ranks. Lightning has divided each loss by the micro-batches of a full step."""
        full, given = trainer.accumulate_grad_batches, self._num_micro_batches
        means = {name: total / given if given > 1 else total for name, total in self._sums.items() if name != "loss"}
        if "loss" in self._sums:
            means["loss"] = self._sums["loss"] * (full / given) if full != given else self._sums["loss"]
        if trainer.world_size > 1 and means:
            num_tokens = next(iter(means.values())).new_tensor(self._num_tokens, dtype=torch.float64)
            mine = torch.stack([*(each.double() for each in means.values()), num_tokens])
            *values, tokens = cast(Tensor, trainer.strategy.reduce(mine, reduce_op="mean")).unbind()
            means = dict(zip(means, values, strict=True))
            means["step_tokens"] = (tokens * trainer.world_size).round().long()
        return means

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = time.perf_counter()

    @never_raises
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self._pending is None:
            return
        self.run.add_seconds(EVALUATION_SECONDS, time.perf_counter() - self._validation_began)
        monitored = [str(each.monitor) for each in trainer.callbacks if getattr(each, "mode", None) == "min"]  # type: ignore[attr-defined]
        names = [self._held_out] if self._held_out else ["val_loss", *(name for name in monitored if "val" in name)]
        for name in names:
            if name in trainer.callback_metrics:
                self._pending[1]["held_out_loss"] = trainer.callback_metrics[name]
                return

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.flush()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.flush()

    def flush(self) -> None:
        """Report the step that is done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            step, metrics = pending
            self.run.log(step, **metrics)
