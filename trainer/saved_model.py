"""A model as a checkpoint holds it, without its run: to look at it, not to train on."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from trainer.config import ModelConfig
from trainer.data.tokenizer import BytePairs, Bytes, Ids, Tokenizer
from trainer.errors import UsageError
from trainer.model import GPT
from trainer.provenance import PAIRS


def load_model(folder: Path) -> GPT:
    """The model of the checkpoint in `folder` (`step-000000500`), on the CPU, in evaluation mode. Raises UsageError."""
    settings = saved_settings(folder)
    shape = {each.name: settings.get(f"model.{each.name}") for each in fields(ModelConfig)}
    model = GPT(ModelConfig(**{name: value for name, value in shape.items() if value is not None}))
    model.load_state_dict(_read(folder, "model"))
    return model.eval()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of the model. Raises UsageError."""
    settings = saved_settings(folder)
    name = settings.get("the tokenizer")
    if (pairs := settings.get(PAIRS)) is not None:
        return BytePairs.from_json(pairs)
    return Bytes() if name == "bytes" else Ids(name)


def saved_settings(folder: Path) -> dict[str, Any]:
    """The settings that the checkpoint was made with (trainer/provenance.py). Raises UsageError."""
    settings: dict[str, Any] = _read(folder, "origin")
    return settings


def _read(folder: Path, name: str) -> Any:
    file = folder / f"{name}.pt"
    if not file.exists():
        raise UsageError(
            f"There is no checkpoint of the trainer at {folder}: give a folder such as "
            ".lossguard/trainer/RUN/checkpoints/step-000000500."
        )
    try:
        return torch.load(file, "cpu", weights_only=True)
    except Exception as problem:
        raise UsageError(f"The checkpoint at {folder} cannot be read: {problem}.") from None
