"""Rows of a data set that were skipped stay skipped in later epochs of a Trainer."""

import copy
import math
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import set_seed

from lossguard.hf import guard
from tests.lossguard.hf.detected import DetectedRun
from tests.lossguard.hf.small import VOCABULARY, LoggedRun, Rows, gpt2, trainer_in
from tests.lossguard.scripted import rollback

pytestmark = pytest.mark.slow
NUM_PAIRS, BAD = 160, range(50, 53)
"""Rows, two of which make a batch, and those batches of the first epoch that hold the corrupted rows."""


@pytest.mark.parametrize("workers", [0, 2])
def test_later_epochs_of_a_trainer_leave_out_the_rows_of_skipped_batches(tmp_path: Path, workers: int) -> None:
    trainer = trainer_in(tmp_path, Rows(46), max_steps=50, dataloader_num_workers=workers)  # 12 steps in an epoch
    run = LoggedRun({9: rollback(rewind_to=5, skip_from=6, skip_to=9)})
    guard(trainer, run, every=5)
    trainer.train()
    batch_of = {step: batch or 0 for (step, _), batch in zip(run.logged, run.batches, strict=True)}
    skipped = set(run.recorded[1][3]["samples"][0][2])
    epochs: list[set[int]] = [set() for _ in range(5)]
    for step, micro_batches in trainer.live().items():
        epochs[batch_of[step] // 12] |= {row for rows, _ in micro_batches for row in rows}
    assert len(skipped) == 12
    assert epochs[0] | skipped == set(range(46))
    assert epochs[1:4] == [set(range(46)) - skipped] * 3
    assert max(trainer.live()) == 49


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("skip_samples", "num_rollbacks"), [("run", 1), ("once", 3)])
def test_corrupted_pairs_of_direct_preference_optimization_cost_one_rollback(
    tmp_path: Path, skip_samples: str, num_rollbacks: int
) -> None:
    trl = pytest.importorskip("trl")

    class Noting(trl.DPOTrainer):  # type: ignore[name-defined,misc]
        def training_step(self, model: Any, inputs: Any, *others: Any) -> Any:
            corrupted.append(int(inputs["ref_chosen_logps"].isnan().sum()))
            return super().training_step(model, inputs, *others)

    def trainer() -> Any:
        set_seed(7)
        arguments = trl.DPOConfig(
            str(tmp_path), num_train_epochs=2, save_strategy="no", report_to=[], use_cpu=True, max_length=8,
            per_device_train_batch_size=2, disable_tqdm=True, dataloader_pin_memory=False, bf16=False,
            gradient_checkpointing=False, precompute_ref_log_probs=True, learning_rate=1e-3, logging_steps=1000,
        )  # fmt: skip
        model = gpt2()
        reference = copy.deepcopy(model)
        return Noting(
            model=model, ref_model=reference, args=arguments, train_dataset=pairs(), processing_class=tokenizer()
        )

    first = list(trainer().get_train_dataloader().batch_sampler)
    bad = {row for batch in BAD for row in first[batch]}
    corrupted: list[int] = []
    dpo, run = trainer(), DetectedRun()
    dpo.train_dataset = dpo.train_dataset.map(
        lambda row, number: {"ref_chosen_logps": math.nan if number in bad else row["ref_chosen_logps"]},
        with_indices=True,
    )
    guard(dpo, run, every=10, skip_samples=skip_samples)
    dpo.train()
    rolled_back = [record for record in run.recorded if record[0] == "rollback"]
    assert len(rolled_back) == num_rollbacks
    assert run.events == []  # with "once", too: there the samples are to come again
    if skip_samples == "run":
        assert sum(corrupted) == sum(corrupted[: BAD.stop]) > 0
        verified = "and no skipped sample was trained again."
        assert run.effects.interventions[0].reasons[-1].endswith(verified)
        assert math.isfinite(run.column("loss")[-1])


def pairs() -> Any:
    datasets = pytest.importorskip("datasets")

    def words(number: int) -> dict[str, str]:
        draw = random.Random(number)
        return {
            "prompt": " ".join(f"t{draw.randrange(2, 28)}" for _ in range(3)),
            "chosen": f" t28 t{draw.randrange(2, 28)}",
            "rejected": f" t29 t{draw.randrange(2, 28)}",
        }

    return datasets.Dataset.from_list([words(number) for number in range(NUM_PAIRS)])


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY)}, unk_token="t0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=inner, unk_token="t0", pad_token="t0", eos_token="t1")
