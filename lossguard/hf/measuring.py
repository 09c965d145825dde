"""The metrics that a transformers Trainer computes in each optimizer step, log Z of its loss where that is asked for.

Everything is summed on the device and read by the run's own thread: the loop never waits for it. An error in here is
reported once, and training continues.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossguard.run.collectives import num_ranks
from lossguard.run.run import Run
from lossguard.torch.loss import causal_lm_loss
from lossguard.torch.reduce import gathered
from lossguard.vocabulary.errors import LogOnce, never_raises
from lossguard.vocabulary.metrics import EVALUATION_SECONDS

# Attributes of other objects that are replaced for a time, and put back as they were.

ABSENT = object()


class Hooks:
    """Replaced attributes. `remove` undoes all of them, the last one first."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Have `owner.name(...)` call `wrapper(original, ...)`."""
        self.set(owner, name, functools.partial(wrapper, getattr(owner, name)))

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set `owner.name`, which the class of `owner` or `owner` itself must have."""
        self._replaced.append((owner, name, vars(owner).get(name, ABSENT)))
        setattr(owner, name, value)

    def remove(self) -> None:
        """Put all back."""
        while self._replaced:
            owner, name, earlier = self._replaced.pop()
            if earlier is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, earlier)


# The loss of a causal language model through `causal_lm_loss`, which gives its log Z without another pass.

IGNORED = -100


class LogZSum(NamedTuple):
    """log Z of the tokens of a step: 0-dim tensors."""

    total: Tensor
    num_tokens: Tensor
    highest: Tensor


class LogZ:
    """A `compute_loss_func`: the same loss as the model's own but for rounding, and the sums of its log Z.

    Raises ValueError where the loss of `trainer` is another one.
    """

    def __init__(self, trainer: Trainer) -> None:
        if why := _other_loss(trainer):
            raise ValueError(f"log_z=True needs the plain loss of a causal language model, and {why}: leave log_z out")
        self.trainer: Any = trainer
        self._sum: LogZSum | None = None

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        logits_BTV = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        targets_BT = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
        terms = causal_lm_loss(logits_BTV, targets_BT.to(logits_BTV.device))
        if self.trainer.model.training:
            total, num_tokens, highest = terms.log_z * terms.num_tokens, terms.num_tokens, terms.log_z_max
            if self._sum is not None:
                total, num_tokens = self._sum.total + total, self._sum.num_tokens + num_tokens
                highest = torch.maximum(self._sum.highest, highest)  # keeps a NaN
            self._sum = LogZSum(total, num_tokens, highest)
        if num_items_in_batch is None:
            return terms.loss
        share: Tensor = terms.num_tokens / num_items_in_batch
        return terms.loss * share

    def take(self) -> LogZSum | None:
        """The sums since the last call."""
        taken, self._sum = self._sum, None
        return taken


def _other_loss(trainer: Any) -> str:
    """Return why the loss of this trainer is not the plain one; empty if it is."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's
    if trainer.compute_loss_func is not None:
        return "this trainer has a compute_loss_func of its own"
    if trainer.label_smoother is not None:
        return "this trainer smooths its labels"
    if type(trainer).compute_loss is not Trainer.compute_loss:
        return f"{type(trainer).__name__} computes its loss itself"
    is_causal = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if not is_causal or model.loss_function is not ForCausalLMLoss:
        return f"{type(model).__name__} has another one"
    if getattr(model.config, "output_router_logits", False):
        return "this model adds the loss of its router"
    return ""


# Measuring.


class Measuring(TrainerCallback):
    """Logs every optimizer step of `trainer`: loss, gradient norm, learning rate, tokens, held-out loss, log Z."""

    def __init__(self, trainer: Trainer, run: Run, progress: Any, *, log_z: bool) -> None:
        """`progress`: a TrainerProgress, in which the tokens are counted."""
        self.trainer: Any = trainer
        self.progress = progress
        self.run, self.log_once = run, LogOnce(quiet=run.rank > 0)
        self.log_z = LogZ(trainer) if log_z else None
        self.forget()
        trainer.callback_handler.callbacks.insert(0, self)  # before those of the user, who may read `state.epoch`
        train = trainer.train
        trainer.train = functools.wraps(train)(functools.partial(self.train, train))  # type: ignore[method-assign]

    def train(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """`trainer.train`, measured. Afterwards the trainer is as it was before."""
        hooks = Hooks()
        try:
            self.install(hooks)
            result = original(*args, **kwargs)
            self.log_step()
            return result
        finally:
            hooks.remove()
            self.ended()

    def install(self, hooks: Hooks) -> None:
        self.forget()
        self._given = copy.copy(self.trainer.args)  # before a guard changes some for the time of the training
        hooks.wrap(self.trainer, "training_step", self.training_step)
        hooks.wrap(self.trainer.accelerator, "clip_grad_norm_", self._clip_grad_norm)
        if self.log_z is not None:
            hooks.set(self.trainer, "compute_loss_func", self.log_z)

    def ended(self) -> None:
        """`train` has returned or raised."""
        if num_ranks() == 1:  # the other ranks may not be here
            self.log_step()
        self.forget()

    def forget(self) -> None:
        """Discard the measurements of the unlogged step, which will be repeated."""
        self._loss: Tensor | None = None
        self._num_tokens = 0
        self._num_labels: Any = None
        self._step_metrics: dict[str, Any] = {}
        self._finished_step: int | None = None  # whose metrics are not logged yet
        if self.log_z is not None:
            self.log_z.take()

    def training_step(
        self, original: Callable[..., Tensor], model: Any, inputs: Any, *args: Any, **kwargs: Any
    ) -> Tensor:
        """One micro-batch. Its loss is its share of the loss of the step."""
        loss = original(model, inputs, *args, **kwargs)
        self._add(loss, inputs, *args, **kwargs)
        return loss

    @never_raises
    def _add(self, loss: Tensor, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> None:
        loss = loss.detach().float()
        self._loss = loss if self._loss is None else self._loss + loss
        self._num_labels = num_items_in_batch
        name = getattr(self.trainer.model, "main_input_name", "input_ids")
        if name in inputs:
            self._num_tokens += inputs[name].numel()

    def _clip_grad_norm(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        norm = original(*args, **kwargs)
        self._step_metrics["grad_norm"] = norm  # before clipping
        return norm

    @never_raises
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.announce()
        if not self._unscaled():
            self.run.scales_loss()
        self.progress.tokens = state.num_input_tokens_seen if state.global_step else 0
        if state.global_step and not state.num_input_tokens_seen:
            self.progress.tokens = None  # resumed from a checkpoint that does not know it
        self.run.add_config(configuration(self.trainer, self._given), total_steps=state.max_steps)

    def announce(self) -> None:
        """Say that the run is watched."""
        self.run.announce(self.log_once.warn)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.log_step()

    @never_raises
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        if "grad_norm" not in self._step_metrics and self._unscaled():  # transformers 4 measures it only where it clips
            gradients = [each.grad for each in self.trainer.model.parameters() if each.grad is not None]
            self._step_metrics["grad_norm"] = torch.nn.utils.get_total_norm(gradients)
        self._step_metrics["lr"] = optimizer.param_groups[0]["lr"]

    def _unscaled(self) -> bool:
        return getattr(self.trainer.accelerator, "scaler", None) is None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._finished_step = state.global_step - 1

    @never_raises
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self._finished_step is None:  # before the first step, or after the training
            return
        for name, value in (metrics or {}).items():
            if name.startswith("eval_") and name.endswith("_runtime"):  # of each dataset
                self.run.add_seconds(EVALUATION_SECONDS, value)
            if name.startswith("eval_") and name.endswith("loss"):  # eval_loss, eval_<name of the data>_loss
                data = name.removeprefix("eval_").removesuffix("loss").strip("_")
                self._step_metrics["held_out_loss" + (data and f"_{data}")] = value

    def log_step(self) -> None:
        """Log the step that was finished last, on every rank: all that belongs to it, evaluation too, is done."""
        step = self._finished_step
        if step is not None:
            self._log(step)
            self.forget()

    @never_raises
    def _log(self, step: int) -> None:
        loss, num_tokens = self._loss, self._num_tokens
        log_z = None if self.log_z is None else self.log_z.take()
        if num_ranks() > 1 and loss is not None:
            loss, num_tokens, log_z = self._over_ranks(loss, log_z)
        tokens = self.progress.tokens
        if tokens is not None:
            self.progress.tokens = tokens = tokens + num_tokens
        metrics = {"loss": loss, "tokens": tokens, **self._step_metrics}
        if log_z is not None:
            metrics |= {"log_z": log_z.total / log_z.num_tokens.clamp(min=1), "log_z_max": log_z.highest}
        if self.run.batch_index is None:
            metrics["batch_index"] = step  # without a guard, the Trainer uses batch after batch
        self.run.log(step, **metrics)

    def _over_ranks(self, loss: Tensor, log_z: LogZSum | None) -> tuple[Tensor, Any, LogZSum | None]:
        """The loss of the step, its input tokens and its log Z, over all ranks; a NaN on one of them is a NaN."""
        # With average_tokens_across_devices, each rank's loss is its share of the mean already.
        is_plain = self.trainer.args.average_tokens_across_devices or self._num_labels is None
        mine_F = loss.new_zeros(6)
        mine_F[0], mine_F[1], mine_F[2] = loss, 1.0 if is_plain else self._num_labels, self._num_tokens
        if log_z is not None:
            mine_F[3:] = torch.stack((log_z.total, log_z.num_tokens.float(), log_z.highest))
        losses_R, weights_R, tokens_R, totals_R, counts_R, highest_R = gathered(mine_F).unbind(1)
        loss = losses_R.mean() if is_plain else (losses_R * weights_R).sum() / weights_R.sum()
        if log_z is not None:
            log_z = LogZSum(totals_R.sum(), counts_R.sum(), highest_R.amax())
        return loss, tokens_R.sum().long(), log_z


def configuration(trainer: Any, arguments: Any) -> dict[str, Any]:
    """The arguments of the training, and the model with its number of parameters."""
    model = trainer.model
    parameters = list(model.parameters())
    described = {"class": type(model).__name__, "num_parameters": sum(each.numel() for each in parameters)}
    described["num_trainable_parameters"] = sum(each.numel() for each in parameters if each.requires_grad)
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        described["config"] = config.to_dict()
    return {"training_arguments": arguments.to_dict(), "model": described, "world_size": arguments.world_size}
