"""A script with the Trainer of transformers that knows nothing of Lossguard: a tiny GPT-2 on the bytes of a text.

    python hf_script.py --output_dir out --steps 60 --save 10 --trace trace.jsonl [--bad 20 25] [--order order.json] ..

`--bad`: the samples of these batches of the first epoch have random targets.
`--order`: a JSON list of the samples of each batch, for a plain run of another order.
"""

import argparse
import json
import os
import sysconfig
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from tests.waiting import eventually

LENGTH, BATCH, SAMPLES, SEED = 32, 8, 2400, 42
torch.set_num_threads(1)


def order_of(epoch: int) -> list[int]:
    """The samples of an epoch, in the Trainer's order."""
    order: list[int] = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
    return order


class Text(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, bad: set[int]) -> None:
        content = b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
        self.rows = torch.frombuffer(bytearray(content[: SAMPLES * LENGTH]), dtype=torch.uint8).view(SAMPLES, LENGTH)
        self.bad = bad

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self.rows[index].long()
        labels = ids
        if index in self.bad:
            labels = torch.randint(0, 256, ids.shape, generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": labels}


class Listed:
    """The batches of a list, as many in each epoch as there are without a skip."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.left = iter(batches)

    def __len__(self) -> int:
        return SAMPLES // BATCH

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.left, len(self))


class Fixed(Trainer):
    """Trains on the batches of a list, in a plain loader."""

    batches: Listed

    def get_train_dataloader(self) -> DataLoader[Any]:
        dataset: Any = self.train_dataset
        return DataLoader(dataset, batch_sampler=self.batches, collate_fn=self.data_collator)


class Trace(TrainerCallback):
    def __init__(self, path: str) -> None:
        self.file = open(path, "a")  # noqa: SIM115
        self.contents = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            print(json.dumps([state.global_step, self.contents, logs["loss"]]), file=self.file, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save", type=int, default=10)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--bad", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--order")
    parser.add_argument("--report", default="none")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each step")
    parser.add_argument("--wait-at", type=int, help="a step before which a process waits that does not resume")
    options = parser.parse_args()
    bad = {sample for batch in range(*options.bad) for sample in order_of(0)[batch * BATCH : (batch + 1) * BATCH]}
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=256, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    arguments = TrainingArguments(
        output_dir=options.output_dir,
        max_steps=options.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=2e-3,
        logging_steps=1,
        save_steps=options.save,
        report_to=options.report,
        seed=SEED,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_num_workers=0,
    )
    trace = Trace(options.trace)
    kind = Fixed if options.order else Trainer
    trainer: Any = kind(model=model, args=arguments, train_dataset=Text(bad), callbacks=[trace])
    if options.order:
        trainer.batches = Listed(json.loads(Path(options.order).read_text()))
    training_step = trainer.training_step

    def watched(model: Any, inputs: Any, *more: Any) -> Any:
        eventually(lambda: False, options.pause)
        if trainer.state.global_step == options.wait_at and "LOSSGUARD_RESUME_CHECKPOINT" not in os.environ:
            eventually(lambda: False, 600.0)  # until it is stopped
        trace.contents = zlib.crc32(inputs["input_ids"].numpy().tobytes())
        return training_step(model, inputs, *more)

    trainer.training_step = watched
    trainer.train()
    weights = {name: zlib.crc32(each.detach().numpy().tobytes()) for name, each in model.state_dict().items()}
    Path(options.trace).with_suffix(".weights").write_text(json.dumps(weights))


if __name__ == "__main__":
    main()
