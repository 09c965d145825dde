"""What `saving` tells of checkpoints that several ranks write."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard.errors import CheckpointError
from tests.ranks.saving import KINDS, Small, restored

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ranks")]
Told = list[dict[str, Any]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_that_skips_is_bit_for_bit_a_run_that_skips_from_the_start(told: Told, kind: str) -> None:
    for each in told:
        rolled, never = each["a_rollback_that_skips"][kind]
        assert rolled == never


@pytest.mark.parametrize("kind", KINDS)
def test_twelve_steps_and_eight_more_are_bit_for_bit_twenty(two: Told, kind: str) -> None:
    for each in two:
        once, halves = each["twelve_steps_and_eight_more"][kind]
        assert once == halves


def test_each_rank_has_its_own_random_numbers(two: Told) -> None:
    assert two[0]["a_rollback_that_skips"]["fsdp"][0]["losses"] != two[1]["a_rollback_that_skips"]["fsdp"][0]["losses"]


@pytest.mark.parametrize("saved", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_two_ranks_wrote_is_restored_on_four_however_it_was_sharded(
    two: Told, four: Told, saved: str, kind: str
) -> None:
    whole = two[0]["a_checkpoint_of_each_kind"][saved]
    for each in four:
        found = each["what_two_ranks_wrote"][f"{saved} as {kind}"]
        assert (found["step"], found["whole"]) == (7, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_what_two_and_four_ranks_wrote_is_restored_by_one_process(
    two: Told, four: Told, folder: Path, kind: str
) -> None:
    alone = Small("alone", folder / kind)
    assert restored(alone, 7)["whole"] == two[0]["a_checkpoint_of_each_kind"][kind]
    assert {each["what_two_ranks_wrote"]["after"][kind] for each in four} == {8}
    assert restored(alone)["step"] == 8


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_process_wrote_is_restored_on_two_ranks(two: Told, folder: Path, kind: str) -> None:
    alone = restored(Small("alone", folder / "alone"))
    for each in two:
        found = each["a_checkpoint_of_one_process"][kind]
        assert (found["step"], found["whole"]) == (7, alone["whole"])


def test_a_checkpoint_that_is_damaged_in_one_piece_is_passed_over_by_all(two: Told) -> None:
    assert [each["a_piece_that_is_damaged"] for each in two] == [{"step": 5}] * 2


def test_a_checkpoint_that_one_rank_cannot_write_is_none(two: Told) -> None:
    full = [each["a_rank_whose_disk_is_full"] for each in two]
    assert [each["left"] for each in full] == [["step-000000000"]] * 2
    assert full[0]["problems"] == ["RuntimeError: rank 1: OSError: [Errno 28] No space left on device"]
    assert full[1]["problems"] == ["OSError: [Errno 28] No space left on device"]


def test_an_object_that_forgets_on_one_rank_is_found_out_by_all(two: Told) -> None:
    for each in two:
        raised = each["an_object_that_forgets_on_one_rank"]["raised"]
        assert "scheduler differs from the checkpoint of step 0: last_epoch was 0 and is 17" in raised


def test_what_could_not_be_restored_safely_is_not_saved(two: Told) -> None:
    for rank, each in enumerate(two):
        story = each["a_state_that_is_no_plain_value"]
        assert f"the state of 'rank-{rank}' contains more than tensors and plain values" in story["raised"]
        assert story["steps"] == []


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of a checkpoint was run",))


def test_code_in_a_sharded_checkpoint_is_never_run(two: Told, tmp_path: Path, folder: Path) -> None:
    """Even where the manifest was made to fit."""
    from lossguard.torch.files import fingerprint

    for name in ("__0_0.distcp", "rank-0.pt", "model.pt"):
        copy = tmp_path / name / "step-000000007"
        copy.mkdir(parents=True)
        for path in (folder / "ddp" / "step-000000007").iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        torch.save(Bomb(), copy / name)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["files"][name] = fingerprint(copy / name)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match="no intact checkpoint"):
            Small("alone", tmp_path / name).checkpoints.load(7)


def test_an_index_that_points_out_of_its_checkpoint_is_not_followed(two: Told, folder: Path, tmp_path: Path) -> None:
    from lossguard.torch.tensor_files import TensorFiles

    content = json.loads((folder / "ddp" / "step-000000007" / "tensors.json").read_text())
    content["model.0.weight"]["pieces"][0]["file"] = "../elsewhere"
    (tmp_path / "tensors.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"names the file '[.][.]/elsewhere', which the manifest does not list"):
        TensorFiles(tmp_path, ["__0_0.distcp", "__1_0.distcp"])
