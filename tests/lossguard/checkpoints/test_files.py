from pathlib import Path

import pytest
import torch

from lossguard.checkpoints.files import (
    PARTIAL,
    REPLACED,
    clean_up,
    fingerprint,
    publish,
    read_state,
    remove,
    write_state,
)
from lossguard.vocabulary.errors import CheckpointError


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_published_folder_replaces_the_one_of_its_name(tmp_path: Path) -> None:
    place = folder(tmp_path / "step-1", "old")
    publish(folder(tmp_path / f"{PARTIAL}1", "new"), place)
    clean_up(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]
    assert (place / "file").read_text() == "new"


def test_a_folder_whose_replacement_never_came_is_restored(tmp_path: Path) -> None:
    folder(tmp_path / f"{REPLACED}step-1", "old")
    folder(tmp_path / f"{PARTIAL}1", "half")
    clean_up(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]


def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    remove(folder(tmp_path / "step-1", "old"))
    assert list(tmp_path.iterdir()) == []


def test_a_sparse_tensor_with_an_index_outside_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """torch 2.13 itself loads it, and the process dies, or worse, when it is used."""
    indices, values = torch.tensor([[10**9]]), torch.ones(1)
    torch.save(torch.sparse_coo_tensor(indices, values, (4,), check_invariants=False), tmp_path / "box.pt")
    with pytest.raises(RuntimeError, match="size is 4 but found index 1000000000"):
        read_state(tmp_path / "box.pt")
    torch.save(torch.eye(2).to_sparse(), tmp_path / "box.pt")
    assert read_state(tmp_path / "box.pt").is_sparse
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()  # type: ignore[no-untyped-call]


def test_a_written_state_has_the_fingerprint_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    assert write_state(path, {"w": torch.ones(3)}) == fingerprint(path)
    with pytest.raises(CheckpointError, match="'model' contains more than tensors"):
        write_state(path, {"w": object()})
