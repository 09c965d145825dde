"""Direct preference optimization over two epochs: the loss on unseen pairs, guarded with corrupted pairs and clean.

    python -m benchmarks.frameworks.dpo

The reference's log probability of the pairs in three batches is NaN. Three seeds, of the model and the order.
"""

import copy
import math
import os
import random
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import torch
import trl
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

import lossguard
from examples.laptop import collector
from lossguard import Client

NUM_PAIRS, NUM_HELD_OUT, VOCABULARY = 800, 200, 32
BAD_BATCHES = range(200, 203)


class Noting(trl.DPOTrainer):  # type: ignore[name-defined,misc]
    """Notes how many corrupted pairs each step trains."""

    corrupted: list[int]

    def training_step(self, model: Any, inputs: Any, *others: Any) -> torch.Tensor:
        self.corrupted.append(int(inputs["ref_chosen_logps"].isnan().sum()))
        return super().training_step(model, inputs, *others)  # type: ignore[no-any-return]


def pair(number: int) -> dict[str, str]:
    """A prompt, and two answers: the one with the larger first word is preferred, nine times in ten."""
    draw = random.Random(number)
    words = [draw.sample(range(2, VOCABULARY), 2) for _ in range(2)]
    words.sort(reverse=draw.random() < 0.9)
    chosen, rejected = (" ".join(f"t{word}" for word in answer) for answer in words)
    return {"prompt": "t2 t3 t4", "chosen": f" {chosen}", "rejected": f" {rejected}"}


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kind: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = kind(tokenizer_object=words, unk_token="t0", pad_token="t0", eos_token="t1")
    return made


def trainer(folder: Path, seed: int) -> Any:
    set_seed(seed)
    arguments = trl.DPOConfig(  # type: ignore[attr-defined]
        str(folder), num_train_epochs=2, save_strategy="no", report_to=[], use_cpu=True, max_length=8, seed=seed,
        per_device_train_batch_size=2, disable_tqdm=True, dataloader_pin_memory=False, bf16=False,
        gradient_checkpointing=False, precompute_ref_log_probs=True, learning_rate=1e-3, logging_steps=1000,
    )  # fmt: skip
    size: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": 8, "n_embd": 32, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    train, held_out = (
        datasets.Dataset.from_list([pair(number) for number in numbers])
        for numbers in (range(NUM_PAIRS), range(NUM_PAIRS, NUM_PAIRS + NUM_HELD_OUT))
    )
    made = Noting(
        model=model, ref_model=copy.deepcopy(model), args=arguments, train_dataset=train, eval_dataset=held_out,
        processing_class=tokenizer(),
    )  # fmt: skip
    made.corrupted = []
    return made


def corrupt(made: Any) -> None:
    """Make the pairs NaN that the bad batches of the first epoch hold."""
    batches = list(made.get_train_dataloader().batch_sampler)
    bad = {row for batch in BAD_BATCHES for row in batches[batch]}
    made.train_dataset = made.train_dataset.map(
        lambda row, number: {"ref_chosen_logps": math.nan if number in bad else row["ref_chosen_logps"]},
        with_indices=True,
    )


def main() -> None:
    torch.set_num_threads(1)
    for seed in range(3):
        with collector() as folder:
            clean = trainer(folder / "clean", seed)
            clean.train()
            guarded = trainer(folder / "guarded", seed)
            corrupt(guarded)
            run = lossguard.init(project="dpo", directory=folder / "spool")
            lossguard.hf.guard(guarded, run, every=10)
            guarded.train()
            run.finish()
            with Client(os.environ["LOSSGUARD_URL"]) as client:
                states = [each["state"] for each in client.get(f"/runs/{run.id}")["interventions"]]
            losses = [each.evaluate()["eval_loss"] for each in (guarded, clean)]
        at = [step for step, number in enumerate(guarded.corrupted) if number]
        print(f"seed {seed}: held-out loss {losses[0]:.4f}, clean {losses[1]:.4f}; interventions {states}")
        print(f"  {len(guarded.corrupted)} steps, {sum(guarded.corrupted)} corrupted pairs, trained in steps {at}")


if __name__ == "__main__":
    main()
