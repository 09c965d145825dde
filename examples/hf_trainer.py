"""A Hugging Face Trainer that is rolled back past a bad part of its data.

    python examples/hf_trainer.py [--steps 400]          about a minute on two cores

It trains a tiny GPT-2 on the source of Python's standard library. The targets of the batches 200 to 229 are shuffled.
The collector runs beside it; the summary at the end says what was detected, and what it cost.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

import lossguard
from examples.laptop import CONTEXT, FAULT, collector, shuffled, summary, text


class FaultyTrainer(Trainer):
    """Any Trainer, but for the planted fault."""

    run: lossguard.Run

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self.run.batch_index in FAULT:
            inputs["labels"] = shuffled(inputs["labels"])
        return super().training_step(model, inputs, num_items_in_batch)


def train(steps: int, folder: Path) -> str:
    """Train, and return the id of the run."""
    set_seed(0)
    size: dict[str, Any] = {"vocab_size": 256, "n_positions": CONTEXT + 1, "n_embd": 64, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    rows = [{"input_ids": row, "labels": row} for row in text(8000)]
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=12,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
        warmup_steps=50,
        lr_scheduler_type="cosine",
        save_strategy="no",
        logging_steps=100,
        report_to=[],
        use_cpu=True,
    )
    trainer = FaultyTrainer(model=model, args=arguments, train_dataset=rows)  # type: ignore[arg-type]  # any sequence

    run = lossguard.init(project="hf-trainer", directory=folder / "spool", total_steps=steps)
    lossguard.hf.guard(trainer, run, every=25)
    trainer.run = run
    trainer.train()
    run.finish()
    return run.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    with collector() as folder:
        summary(train(given.steps, folder))
