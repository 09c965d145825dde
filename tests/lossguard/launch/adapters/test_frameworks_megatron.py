from pathlib import Path

import pytest

from lossguard import Ledger, Skip
from lossguard.launch.adapters import ADAPTERS, Adapter, Options
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.adapters import folders


def adapter(folder: Path, *more: str) -> Adapter:
    command = ["torchrun", "pretrain_gpt.py", "--save", str(folder), *more]
    return ADAPTERS["megatron"](command, {}, Options())


def test_a_checkpoint_counts_once_the_tracker_file_names_it_or_a_later_one(tmp_path: Path) -> None:
    assert adapter(tmp_path / "new").checkpoints() == adapter(tmp_path).checkpoints() == []
    folders.megatron(tmp_path, 100, 200, 300, latest=200)
    (tmp_path / "iter_0000200" / "metadata.json").unlink()
    assert list(adapter(tmp_path).checkpoints()) == [100]
    for name in ("mp_rank_00/model_optim_rng.pt", ".metadata"):
        file = tmp_path / "iter_0000200" / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        assert sorted(adapter(tmp_path).checkpoints()) == [100, 200]
        file.unlink()


def test_it_resumes_from_a_step_and_skips_iterations_that_count_from_1_and_keep_their_number(tmp_path: Path) -> None:
    assert adapter(tmp_path).batch_of(300, Ledger([Skip(100, 200)])) == 299
    arguments, _ = adapter(tmp_path, "--iterations-to-skip", "7", "8").resume(100, [Skip(100, 103), Skip(7, 9)])
    assert arguments == [
        *("--load", str(tmp_path), "--ckpt-step", "100"),
        *("--iterations-to-skip", "7", "8", "101", "102", "103", "9"),
    ]


def test_what_is_discarded_leaves_the_folder_and_the_tracker_file_names_the_rest(tmp_path: Path) -> None:
    folder = folders.megatron(tmp_path / "save", 100, 200, 300)
    moved = adapter(folder).discard_after(100)
    assert moved == [tmp_path / "save.discarded" / name for name in ("iter_0000200", "iter_0000300")]
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "100"
    assert list(adapter(folder).checkpoints()) == [100]
    folders.megatron(folder, 200)
    (again,) = adapter(folder).discard_after(100)
    assert again.name == "iter_0000200-2"


def test_a_kill_while_the_tracker_file_was_written_costs_no_checkpoint(tmp_path: Path) -> None:
    folder = folders.megatron(tmp_path, 100, 200)
    (folder / "latest_checkpointed_iteration.txt").write_text("")
    (folder / "iter_0000300").mkdir()
    assert list(adapter(folder).checkpoints()) == [100, 200]
    adapter(folder).discard_after(200)
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "200"


def test_it_is_killed_where_sigterm_would_save_the_present_state(tmp_path: Path) -> None:
    assert not adapter(tmp_path).saves_when_stopped
    assert adapter(tmp_path, "--exit-signal-handler").saves_when_stopped


def test_what_cannot_be_resumed_from_is_one_sentence(tmp_path: Path) -> None:
    folders.megatron(tmp_path / "release", 100)
    (tmp_path / "release" / "latest_checkpointed_iteration.txt").write_text("release")
    with pytest.raises(ConfigurationError, match="holds 'release', and no iteration to resume from"):
        adapter(tmp_path / "release").checkpoints()
    with pytest.raises(ConfigurationError, match="prefers its non-persistent checkpoints"):
        adapter(tmp_path, "--non-persistent-ckpt-type=local")
    for given in (["--finetune"], ["--no-load-optim", "--no-load-rng"], ["--no-save-optim"], ["--no-save-rng"]):
        with pytest.raises(ConfigurationError, match=f"from its own checkpoints with {' and '.join(given)}: leave"):
            adapter(tmp_path, *given)
