import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lossguard import Ledger, Skip
from lossguard.launch.adapters import ADAPTERS, Adapter, Options
from lossguard.launch.hooks.transformers import _checkpoint_of
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.adapters import folders


def adapter(folder: Path, *more: str) -> Adapter:
    return ADAPTERS["hf"](["python", "run_clm.py", "--output_dir", str(folder), *more], {}, Options())


def test_a_checkpoint_counts_once_its_state_is_written_and_if_it_can_be_resumed(tmp_path: Path) -> None:
    folders.hf(tmp_path, 10, 20, 30, 40, 50)
    (tmp_path / "checkpoint-20" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-30" / "trainer_state.json").write_text('{"global_')
    (tmp_path / "checkpoint-40" / "optimizer.pt").unlink()  # save_only_model
    (tmp_path / "checkpoint-50" / "trainer_state.json").write_text(json.dumps({"global_step": 40}))
    (tmp_path / "runs").mkdir()
    assert list(adapter(tmp_path).checkpoints()) == [10]
    assert [path.name for path in adapter(tmp_path).late_paths(30)] == ["checkpoint-40", "checkpoint-50"]


def test_the_state_of_a_checkpoint_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))  # type: ignore[func-returns-value]
    folders.hf(tmp_path, 10, 20)
    for _ in range(2):
        assert list(adapter(tmp_path).checkpoints()) == [10, 20]
    assert len(read) == 2
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(json.dumps({"global_step": 2}))
    assert list(adapter(tmp_path).checkpoints()) == [10]


def test_the_hook_in_the_process_resumes_and_a_script_may_want_an_argument_for_it_too(tmp_path: Path) -> None:
    variables = {"LOSSGUARD_RESUME_CHECKPOINT": str(tmp_path / "checkpoint-10")}
    assert adapter(tmp_path).resume(10, [Skip(10, 20)]) == ([], variables)
    options = Options(checkpoints=str(tmp_path), resume_args="--resume_from_checkpoint '{checkpoint}' --at {step}")
    arguments, _ = ADAPTERS["hf"](["python", "train.py"], {}, options).resume(10, [])
    assert arguments == ["--resume_from_checkpoint", str(tmp_path / "checkpoint-10"), "--at", "10"]


def test_the_hook_knows_the_checkpoint_of_its_trainer_by_any_name_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "runs", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "work")
    for name in ("../runs", "../link", str(tmp_path / "runs")):
        for variable, value in adapter(Path(name)).resume(10, [])[1].items():
            monkeypatch.setenv(variable, value)
        trainer = SimpleNamespace(args=SimpleNamespace(output_dir=name))
        assert _checkpoint_of(trainer, None) == str(tmp_path / "runs" / "checkpoint-10"), name


def test_the_data_goes_on_without_what_is_skipped(tmp_path: Path) -> None:
    """Step 11 is the eleventh: its batch has the index 10."""
    ledger = Ledger([Skip(10, 20)])
    assert [adapter(tmp_path).batch_of(step, ledger) for step in (1, 10, 11, 12)] == [0, 9, 20, 21]
    assert adapter(tmp_path, "--enable_jit_checkpoint", "True").saves_when_stopped


def test_a_file_in_place_of_the_folder_and_a_command_without_one_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is no folder"):
        adapter(tmp_path / "file").checkpoints()
    with pytest.raises(ConfigurationError, match="the command has no --output_dir: name the Trainer's output_dir"):
        ADAPTERS["hf"](["train"], {}, Options())
