from pathlib import Path

import pytest

from lossguard.launch.adapters import Adapter, Options, adapter_for
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.adapters import folders


def adapter(*arguments: str, options: Options | None = None) -> Adapter:
    return adapter_for("torchtitan", ["torchrun", "-m", "torchtitan.train", *arguments], {}, options or Options())


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ((), "outputs/checkpoint"),
        (("--dump_folder", "out", "--checkpoint.folder=ckpt"), "out/ckpt"),
        (("--job.dump_folder=out",), "out/checkpoint"),
    ],
)
def test_the_command_says_where_its_checkpoints_are(arguments: tuple[str, ...], folder: str) -> None:
    assert adapter(*arguments).folder == Path(folder)
    assert adapter(options=Options(checkpoints="mine")).folder == Path("mine")


def test_a_checkpoint_counts_once_it_has_its_metadata(tmp_path: Path) -> None:
    folders.torchtitan(tmp_path / "checkpoint", 100, 200)
    (tmp_path / "checkpoint" / "step-200" / ".metadata").unlink()
    found = adapter("--dump_folder", str(tmp_path))
    assert list(found.checkpoints()) == [100]
    assert [path.name for path in found.late_paths(100)] == ["step-200"]


def test_it_resumes_from_a_step_and_cannot_skip() -> None:
    assert adapter().resume(100, []).arguments == ("--checkpoint.load_step=100",)
    assert not adapter().can_skip


def test_no_name_with_a_step_stays_in_the_folder(tmp_path: Path) -> None:
    """torchtitan would take any name with step-N in it for a checkpoint."""
    folder = folders.torchtitan(tmp_path / "checkpoint", 100, 200)
    (moved,) = adapter("--dump_folder", str(tmp_path)).discard_after(100)
    assert moved == tmp_path / "checkpoint.discarded" / "step-200"
    assert [path.name for path in folder.iterdir()] == ["step-100"]


def test_a_folder_of_another_program_is_one_sentence(tmp_path: Path) -> None:
    folders.hf(tmp_path / "checkpoint", 100)
    with pytest.raises(ConfigurationError, match="holds no checkpoints of torchtitan: step-1 was expected"):
        adapter("--dump_folder", str(tmp_path)).checkpoints()
