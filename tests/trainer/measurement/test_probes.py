import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.small import small_recipe
from trainer.config import DataConfig, ModelConfig
from trainer.data.tokenizer import Bytes, Ids
from trainer.errors import UsageError
from trainer.measurement.probes import Probes
from trainer.train import Job, train


def _probed(directory: Path) -> list[dict[str, Any]]:
    (spool,) = directory.glob("*/r/*.spool")
    return [line for line in map(json.loads, spool.read_text().splitlines()) if line.get("event") == "probe"]


@pytest.mark.slow
def test_a_run_is_probed_at_intervals_and_learns_what_comes_next(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=60, probe_every=30, probe_prompts=("bottles of be", "\u00e9\n"))
    train(recipe, Job(directory=tmp_path, run_id="r", mode="offline", quiet=True))
    probed = _probed(tmp_path)
    recorded = [(each["step"], each["details"]["prompt"], each["details"]["target"]) for each in probed]
    assert recorded == [(step, *prompt) for step in (29, 59) for prompt in (("bottles of b", "e"), ("\u00e9", "\\n"))]
    first, last = probed[0]["details"], probed[2]["details"]
    assert last["target_log_probability"] > first["target_log_probability"]
    assert (len(last["tokens"]), last["rest"]["count"]) == (256, 0)


def test_probing_changes_nothing_of_the_training(tmp_path: Path) -> None:
    model = ModelConfig(layers=1, heads=2, width=16, context=16, dropout=0.2)
    weights = []
    for every in (0, 1):
        recipe = small_recipe(tmp_path, steps=6, model=model, probe_every=every, evaluate_every=0)
        job = Job(directory=tmp_path / str(every), run_id="r", mode="offline", quiet=True)
        weights.append(train(recipe, job).components.model.embedding.weight)
    assert torch.equal(*weights)


def test_over_shards_a_prompt_is_token_ids_and_there_is_none_by_default(tmp_path: Path) -> None:
    np.arange(2000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    settings: dict[str, Any] = {
        "data": DataConfig(path=str(tmp_path / "a.bin"), batch_size=2),
        "model": ModelConfig(layers=1, heads=1, width=16, context=16, vocab_size=2000),
        "steps": 1,
        "probe_every": 1,
    }
    train(
        small_recipe(tmp_path, **settings, probe_prompts=("7 8 9",)),
        Job(directory=tmp_path, run_id="r", mode="offline", quiet=True),
    )
    (probe,) = _probed(tmp_path)
    assert (probe["details"]["prompt"], probe["details"]["target"]) == ("7 8", "9")
    assert (len(probe["details"]["tokens"]), probe["details"]["rest"]["count"]) == (64, 1936)
    assert Probes(small_recipe(tmp_path, **settings), Ids(None)).prompts == []


@pytest.mark.parametrize(
    ("prompt", "bytewise", "sentence"),
    [
        ("x", True, "is too short"),
        ("", True, "is too short"),
        ("\u00e9t\u00e9", True, "beyond the vocabulary of 128"),
        ("import sys", False, "whole numbers"),
        ("3 128", False, "beyond the vocabulary of 128"),
        ("-1 3", False, "beyond the vocabulary of 128"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, prompt: str, bytewise: bool, sentence: str
) -> None:
    model = ModelConfig(layers=1, heads=1, width=16, context=16, vocab_size=128)
    with pytest.raises(UsageError, match=sentence):
        Probes(small_recipe(tmp_path, model=model, probe_prompts=(prompt,)), Bytes() if bytewise else Ids(None))
