"""What all adapters share."""

import json
import os
from pathlib import Path

import pytest
import torch

from lossguard import Skip
from lossguard.launch.adapters import ADAPTERS, Options
from lossguard.launch.adapters.adapter import (
    has_option,
    is_complete_archive,
    move_aside,
    numbered,
    option,
    skips_in_environment,
    values,
)
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.adapters import folders


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hf", "holds no checkpoints of the Trainer: checkpoint-1 was expected"),
        ("megatron", "holds no checkpoints of Megatron-LM: iter_0000001 or latest_"),
        ("nanochat", "holds no checkpoints of nanochat"),
        ("torchtitan", "holds no checkpoints of torchtitan: step-1 was expected"),
    ],
)
def test_a_folder_of_another_program_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (folders.hf if name == "torchtitan" else folders.torchtitan)(tmp_path, 100)
    adapter = ADAPTERS[name](["train", "--save-every=100"], {}, Options(checkpoints=str(tmp_path)))
    with pytest.raises(ConfigurationError, match=sentence):
        adapter.checkpoints()


def test_the_skips_are_in_the_environment_and_in_a_file_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "skips.json"
    environment = skips_in_environment([Skip(3, 5, "spike"), Skip(9, 11)], file)
    assert environment == {"LOSSGUARD_SKIPS": "[[3, 5], [9, 11]]", "LOSSGUARD_SKIPS_FILE": str(file)}
    assert json.loads(file.read_text())[0] == {"skip_from": 3, "skip_to": 5, "reason": "spike"}
    assert os.listdir(tmp_path) == ["skips.json"]


COMMAND = ["train.py", "--save", "out", "--lr=0.1", "--lr=0.2", "--skip", "1", "2", "--fast", "--skip=3"]


def test_options_of_another_program_are_found_with_the_last_value_or_with_all_of_them() -> None:
    assert (option(COMMAND, "--save"), option(COMMAND, "--lr"), option(COMMAND, "--load")) == ("out", "0.2", None)
    assert option(["--save"], "--save") is None
    assert [has_option(COMMAND, name) for name in ("--fast", "--lr", "--slow")] == [True, True, False]
    assert values(COMMAND, "--skip") == ["1", "2", "3"]


def test_only_whole_names_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step_1", "step_2.tmp", "my_step_3"):
        (tmp_path / name).touch()
    assert numbered(tmp_path, r"step_(\d+)") == {1: tmp_path / "step_1"}
    assert numbered(tmp_path / "none", r"step_(\d+)") == {}


def test_what_is_moved_aside_twice_keeps_both(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        (folder / "step_1").touch()
        move_aside(folder / "step_1", folder)
    assert sorted(path.name for path in (tmp_path / "out.discarded").iterdir()) == ["step_1", "step_1-2"]


def test_checkpoints_in_the_working_directory_are_moved_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "step_9.pt").touch()
    monkeypatch.chdir(tmp_path / "work")
    options = Options(checkpoints="step_{step}.pt", resume_args="--resume {checkpoint}")
    ADAPTERS["generic"](["train"], {}, options).discard_after(5)
    assert [path.name for path in (tmp_path / "work.discarded").iterdir()] == ["step_9.pt"]


@pytest.mark.parametrize("kept", [1.0, 0.99, 0.5, 0.0])
def test_a_file_of_torch_save_that_was_cut_off_is_recognised(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert is_complete_archive(path) == (kept == 1.0)
