from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer, set_seed

from lossguard.hf import watch
from tests.lossguard.hf.small import LENGTH, LoggedRun, Rows, Traced, gpt2, trainer_in

pytestmark = pytest.mark.slow


def test_log_z_is_the_mean_over_the_tokens_of_a_step_and_the_loss_is_the_same_but_for_rounding(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watched(Traced):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            if self.state.global_step == 0:
                logits, labels = model(input_ids=inputs["input_ids"]).logits, inputs["labels"]
                seen.append(logits[:, :-1][labels[:, 1:] != -100].detach())
            return super().training_step(model, inputs, num_items_in_batch)

    options: dict[str, Any] = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    rows = Rows(46, lengths=(5, LENGTH, 9))
    set_seed(1)
    plain = trainer_in(tmp_path / "plain", rows, model=gpt2(0.0), logging_steps=1, **options)
    plain.train()
    set_seed(1)
    trainer, run = trainer_in(tmp_path, rows, model=gpt2(0.0), cls=Watched, **options), LoggedRun()
    watch(trainer, run, log_z=True)
    trainer.train()
    expected = torch.cat(seen).logsumexp(dim=1)
    assert run.column("log_z")[0] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert run.column("log_z_max")[0] == pytest.approx(expected.max().item(), rel=1e-6)
    assert trainer.compute_loss_func is None
    assert len(run.column("log_z")) == 4
    plainly, measured = (
        [each["eval_loss"] for each in of.state.log_history if "eval_loss" in each] for of in (plain, trainer)
    )
    assert measured == pytest.approx(plainly, rel=1e-5)


class OwnLoss(Trainer):
    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        return super().compute_loss(*arguments, **options)


def classifier() -> Any:
    return GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=32, n_positions=12))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cls": OwnLoss}, "OwnLoss computes its loss itself"),
        ({"label_smoothing_factor": 0.1}, "smooths its labels"),
        ({"model": "classifier"}, "GPT2ForSequenceClassification has another one"),
    ],
)
def test_where_the_loss_is_another_one_log_z_is_refused(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    if "model" in options:
        options = {"model": classifier()}
    trainer = trainer_in(tmp_path, Rows(4), **options)
    with pytest.raises(ValueError, match=why):
        watch(trainer, LoggedRun(), log_z=True)
    assert not any("Measuring" in type(each).__name__ for each in trainer.callback_handler.callbacks)
