from pathlib import Path

import pytest

from lossguard.launch.adapters import ADAPTERS, Adapter, Options
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.adapters import folders

COMMAND = ["torchrun", "-m", "scripts.base_train", "--", "--save-every=100"]


def adapter(base: Path, *more: str) -> Adapter:
    return ADAPTERS["nanochat"]([*COMMAND, *more], {"NANOCHAT_BASE_DIR": str(base)}, Options())


def test_the_command_says_where_its_checkpoints_are(tmp_path: Path) -> None:
    assert adapter(tmp_path).folder == tmp_path / "base_checkpoints" / "d20"
    assert adapter(tmp_path, "--depth=12").folder.name == "d12"
    assert adapter(tmp_path, "--depth=12", "--model-tag", "mine").folder.name == "mine"


def test_it_resumes_from_a_step_and_cannot_skip(tmp_path: Path) -> None:
    assert adapter(tmp_path).resume(100, []) == (["--resume-from-step=100"], {})
    assert (adapter(tmp_path).can_skip, adapter(tmp_path).first_step) == (False, 0)
    with pytest.raises(ConfigurationError, match="no --save-every"):
        ADAPTERS["nanochat"](COMMAND[:-1], {}, Options())


def test_a_checkpoint_counts_once_every_rank_has_written_its_part(tmp_path: Path) -> None:
    folder = folders.nanochat(tmp_path / "base_checkpoints" / "d20", 100, 200, 300, 400)
    (folder / "optim_000200_rank1.pt").unlink()
    (folder / "meta_000300.json").unlink()
    (folder / "optim_000400_rank1.pt").write_bytes(b"PK\x03\x04 cut off")
    assert list(adapter(tmp_path).checkpoints()) == [100]
    names = [path.name for path in adapter(tmp_path).late_paths(300)]
    assert names == ["meta_000400.json", "model_000400.pt", "optim_000400_rank0.pt", "optim_000400_rank1.pt"]
    adapter(tmp_path).discard_after(100)
    assert {path.name[6:12] for path in folder.iterdir() if path.name.startswith("optim")} == {"000100"}
