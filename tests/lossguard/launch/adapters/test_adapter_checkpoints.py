from pathlib import Path

import pytest
import torch

from lossguard.launch.adapters.adapter import is_complete_archive, move_aside, numbered


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


@pytest.mark.parametrize("kept", [1.0, 0.99, 0.5, 0.0])
def test_a_file_of_torch_save_that_was_cut_off_is_recognised(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert is_complete_archive(path) == (kept == 1.0)
