from pathlib import Path

import pytest

from lossguard.launch.adapters import ADAPTERS, Adapter, Options
from tests.lossguard.launch.adapters import folders


def adapter(*arguments: str, options: Options | None = None) -> Adapter:
    return ADAPTERS["torchtitan"](["torchrun", "-m", "torchtitan.train", *arguments], {}, options or Options())


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


def test_a_checkpoint_counts_once_it_has_its_metadata_and_it_resumes_from_a_step(tmp_path: Path) -> None:
    folders.torchtitan(tmp_path / "checkpoint", 100, 200)
    (tmp_path / "checkpoint" / "step-200" / ".metadata").unlink()
    found = adapter("--dump_folder", str(tmp_path))
    assert list(found.checkpoints()) == [100]
    assert [path.name for path in found.late_paths(100)] == ["step-200"]
    (moved,) = found.discard_after(100)  # torchtitan would take any name with step-N in it for a checkpoint
    assert moved == tmp_path / "checkpoint.discarded" / "step-200"
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["step-100"]
    assert found.resume(100, []) == (["--checkpoint.load_step=100"], {})
    assert not found.can_skip
