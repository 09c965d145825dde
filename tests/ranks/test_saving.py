"""The scenarios of `saving`: checkpoints that several ranks write."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard.checkpoints.files import fingerprint, folder_name, read_manifest, write_manifest
from lossguard.vocabulary.errors import CheckpointError
from tests import object_store
from tests.lossguard.checkpoints.payloads import PAYLOADS, as_torch_saves_it, runs_when_trusted
from tests.ranks.saving import KINDS, Small, restored

pytestmark = pytest.mark.slow
Results = list[dict[str, Any]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_from_memory_equals_one_from_the_disk_bit_for_bit(two: Results, kind: str) -> None:
    for each in two:
        from_memory, from_disk = each["a_rollback_from_memory"][kind]
        assert from_memory["losses"] == from_disk["losses"]
        assert from_memory["full_state"] == from_disk["full_state"]


@pytest.mark.needs("moto_server")
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_from_an_object_store_equals_one_from_the_disk_bit_for_bit(
    two: Results, kind: str, object_store_server: object_store.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in two:
        from_url, from_disk = each["checkpoints_at_a_url"][kind], each["a_rollback_from_memory"][kind][1]
        assert from_url["losses"] == from_disk["losses"]
        assert from_url["full_state"] == from_disk["full_state"]
        assert from_url["steps"] == [0, 5, 10, 15, 20, 25]
    for name, value in object_store_server.environment.items():
        monkeypatch.setenv(name, value)
    alone = restored(Small("alone", f"s3://ranks/{kind}"))
    assert alone["full_state"] == two[0]["checkpoints_at_a_url"][kind]["full_state"]


@pytest.mark.needs("moto_server")
def test_a_checkpoint_that_one_rank_cannot_upload_does_not_count(two: Results) -> None:
    found = [each["checkpoints_at_a_url"] for each in two]
    assert found[0]["problem"] == "RuntimeError: rank 1: OSError: the credentials have expired"
    assert found[1]["problem"] == "OSError: the credentials have expired"
    assert [each["after"] for each in found] == [[0, 5, 10, 15, 20, 25]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_that_skips_equals_a_run_that_skips_from_the_start_bit_for_bit(results: Results, kind: str) -> None:
    for each in results:
        rolled, skipping = each["a_rollback_that_skips"][kind]
        assert rolled == skipping


@pytest.mark.parametrize("kind", KINDS)
def test_twelve_steps_then_eight_equal_twenty_bit_for_bit(two: Results, kind: str) -> None:
    for each in two:
        once, halves = each["twelve_steps_then_eight"][kind]
        assert once == halves


def test_each_rank_has_its_own_random_numbers(two: Results) -> None:
    assert two[0]["a_rollback_that_skips"]["fsdp"][0]["losses"] != two[1]["a_rollback_that_skips"]["fsdp"][0]["losses"]


@pytest.mark.parametrize("saved", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_two_ranks_wrote_is_restored_on_four_however_it_was_sharded(
    two: Results, four: Results, saved: str, kind: str
) -> None:
    full_state = two[0]["a_checkpoint_of_each_kind"][saved]
    for each in four:
        found = each["what_two_ranks_wrote"][f"{saved} as {kind}"]
        assert (found["step"], found["full_state"]) == (7, full_state)


@pytest.mark.parametrize("kind", KINDS)
def test_what_two_and_four_ranks_wrote_is_restored_by_one_process(
    two: Results, four: Results, folder: Path, kind: str
) -> None:
    alone = Small("alone", folder / kind)
    assert restored(alone, 7)["full_state"] == two[0]["a_checkpoint_of_each_kind"][kind]
    assert {each["what_two_ranks_wrote"]["after"][kind] for each in four} == {8}
    assert restored(alone)["step"] == 8


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_process_wrote_is_restored_on_two_ranks(two: Results, folder: Path, kind: str) -> None:
    alone = restored(Small("alone", folder / "alone"))
    for each in two:
        found = each["a_checkpoint_of_one_process"][kind]
        assert (found["step"], found["full_state"]) == (7, alone["full_state"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_on_one_rank_leaves_the_checkpoint_without_a_certificate_on_all(two: Results, kind: str) -> None:
    found = [each["a_nan_on_one_rank"][kind] for each in two]
    assert found == [{"uncertified": [[4, "rank 1: optimizer.state.0.exp_avg holds NaN"]], "steps": [0, 3]}] * 2


def test_a_bit_that_differs_between_two_copies_leaves_the_checkpoint_without_a_certificate(two: Results) -> None:
    found = [each["a_copy_that_differs"] for each in two]
    assert found[0] == found[1]
    for fault, taken in found[0]["found"].items():
        name = fault.split()[0]
        path = "model.0.weight" if name == "weight" else f"optimizer.state.0.{name}"
        [[_, reason]] = taken
        assert reason.startswith(f"ranks 0, 1 differ in {path}") or "rank 1: optimizer" in reason, fault
    assert found[0]["steps"] == [0, 3, 99], "and one without such a bit has it"


def test_shards_that_two_ranks_have_swapped_are_found_by_their_copies(four: Results) -> None:
    reason = "ranks 0, 2 differ in optimizer.state.0.exp_avg from [0, 0], and in 1 other tensor"
    assert [each["swapped_shards"] for each in four] == [{"uncertified": [[4, reason]], "steps": [0, 3]}] * 4


def test_a_checkpoint_with_one_damaged_shard_is_skipped_by_all_ranks(two: Results) -> None:
    assert [each["a_damaged_shard"] for each in two] == [{"step": 5}] * 2


def test_a_checkpoint_that_one_rank_cannot_write_does_not_count(two: Results) -> None:
    full = [each["a_rank_whose_disk_is_full"] for each in two]
    assert [each["left"] for each in full] == [["step-000000000"]] * 2
    assert full[0]["problems"] == ["RuntimeError: rank 1: OSError: [Errno 28] No space left on device"]
    assert full[1]["problems"] == ["OSError: [Errno 28] No space left on device"]


def test_an_object_that_is_not_restored_on_one_rank_is_detected_on_all_ranks(two: Results) -> None:
    for each in two:
        raised = each["an_object_that_is_not_restored_on_one_rank"]["raised"]
        assert "scheduler differs from the checkpoint of step 0: last_epoch was 0 and is 17" in raised


def test_what_could_not_be_restored_safely_is_not_saved(two: Results) -> None:
    for rank, each in enumerate(two):
        scenario = each["a_state_that_is_not_plain_values"]
        assert f"the state of 'rank-{rank}' contains more than tensors and plain values" in scenario["raised"]
        assert scenario["steps"] == []


def copied(checkpoint: Path, place: Path) -> Path:
    place.mkdir(parents=True)
    for path in checkpoint.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_one_changed_byte_in_any_file_makes_the_next_older_checkpoint_count(
    two: Results, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 7):
        copied(folder / "fsdp" / folder_name(step), tmp_path / folder_name(step))
    small = Small("alone", tmp_path)
    older = restored(small, 5)
    files = sorted((tmp_path / folder_name(7)).iterdir())
    assert len(files) == 11
    for path in files:
        written = path.read_bytes()
        for place in range(0, len(written), max(1, len(written) // 9)):
            path.write_bytes(written[:place] + bytes([written[place] ^ 4]) + written[place + 1 :])
            caplog.clear()
            assert restored(small) == older
            assert [record.getMessage()[:33] for record in caplog.records] == ["skipping the checkpoint of step 7"]
        path.write_bytes(written)
    assert restored(small)["step"] == 7


@pytest.mark.parametrize("write", PAYLOADS)
@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", "rank-0.pt", "model.pt", ".metadata", "tensors.json"])
def test_code_in_a_sharded_checkpoint_is_never_run(
    two: Results, tmp_path: Path, folder: Path, name: str, write: Any
) -> None:
    """Even if the manifest matches the changed file. `.metadata` is what torch's own reader unpickles."""
    copy = copied(folder / "fsdp" / folder_name(7), tmp_path / "run" / folder_name(7))
    proof = tmp_path / "proof"
    write(copy / name, proof)
    assert runs_when_trusted(copy / name, proof), "the payload works"
    manifest = read_manifest(copy)
    manifest["files"][name] = fingerprint(copy / name)
    write_manifest(copy, manifest)
    checkpoints = Small("alone", tmp_path / "run").checkpoints
    if name == ".metadata":
        assert checkpoints.load(7)["step"] == 7, "it is not read"
    else:
        with pytest.raises(CheckpointError, match="no intact checkpoint"):
            checkpoints.load(7)
    assert not proof.exists()


def test_an_index_that_asks_for_objects_in_place_of_tensors_runs_none_of_them(
    two: Results, tmp_path: Path, folder: Path
) -> None:
    """torch unpickles, without restrictions, whatever its metadata calls bytes."""
    copy = copied(folder / "ddp" / folder_name(7), tmp_path / "run" / folder_name(7))
    proof = tmp_path / "proof"
    as_torch_saves_it(copy / "__0_0.distcp", proof)
    content = json.loads((copy / "tensors.json").read_text())
    size = (copy / "__0_0.distcp").stat().st_size
    for tensor in content.values():
        tensor["pieces"] = [{**piece, "file": "__0_0.distcp", "at": 0, "bytes": size} for piece in tensor["pieces"]]
        tensor["type"] = tensor["storage"] = "BytesStorageMetadata"
    (copy / "tensors.json").write_text(json.dumps(content))
    manifest = read_manifest(copy)
    manifest["files"] |= {name: fingerprint(copy / name) for name in ("__0_0.distcp", "tensors.json")}
    write_manifest(copy, manifest)
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Small("alone", tmp_path / "run").checkpoints.load(7)
    assert not proof.exists()


def test_a_manifest_that_lists_files_elsewhere_or_a_pipe_is_refused_without_reading_them(
    two: Results, tmp_path: Path, folder: Path
) -> None:
    copy = copied(folder / "ddp" / folder_name(7), tmp_path / "run" / folder_name(7))
    os.mkfifo(copy / "pipe")
    manifest = read_manifest(copy)
    for name in ("/dev/zero", "../../outside", "pipe", ".", ".."):
        write_manifest(copy, manifest | {"files": manifest["files"] | {name: {}}})
        with pytest.raises(CheckpointError, match="no intact checkpoint"):
            Small("alone", tmp_path / "run").checkpoints.load(7)


def test_an_index_that_points_outside_its_checkpoint_is_refused(two: Results, folder: Path, tmp_path: Path) -> None:
    from lossguard.checkpoints.sharded.tensor_files import TensorFiles

    content = json.loads((folder / "ddp" / "step-000000007" / "tensors.json").read_text())
    content["model.0.weight"]["pieces"][0]["file"] = "../elsewhere"
    (tmp_path / "tensors.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"names the file '[.][.]/elsewhere', which the manifest does not list"):
        TensorFiles(tmp_path, ["__0_0.distcp", "__1_0.distcp"])


def test_of_shards_with_copies_each_is_written_once_and_one_process_can_restore_them(
    four: Results, folder: Path
) -> None:
    saved = four[0]["copies_of_shards"]["saved"]
    assert all(each["copies_of_shards"] == {"saved": saved, "restored": saved} for each in four)
    assert restored(Small("alone", folder / "hybrid"), 7)["full_state"] == saved
    assert len(list((folder / "hybrid" / folder_name(7)).glob("tensors-*.json"))) == 2


def test_a_rank_that_restores_its_own_shards_reads_no_index_of_another_rank(two: Results, folder: Path) -> None:
    from lossguard.checkpoints.sharded.tensor_files import TensorFiles
    from lossguard.checkpoints.sharded.tensor_shard import TensorShard

    place = folder / "fsdp" / folder_name(7)
    content = TensorFiles(place, read_manifest(place)["files"], rank=1)
    pieces = json.loads((place / "tensors-1.json").read_text())
    shards = {
        name: TensorShard(torch.zeros(piece["shape"]), piece["offsets"], content.stored[name].shape)
        for name, (piece,) in pieces.items()
    }
    needed: list[str] = []
    content.read(shards, needed.extend)
    assert needed == ["tensors-1.json", "__1_0.distcp"]
    assert any(shard.local.any() for shard in shards.values())


def test_tensors_that_not_all_ranks_have_are_written_too(four: Results) -> None:
    expected = {"model.shared": [0, 1, 2, 3]} | {f"model.stage{rank}": [rank] * 3 for rank in range(4)}
    assert all(each["different_tensors_on_each_rank"] == expected for each in four)


def test_of_a_sharded_tensor_only_the_damaged_shard_is_reset_and_the_step_count_stays(two: Results) -> None:
    found = [each["damaged_moments_of_a_shard"] for each in two]
    assert found == [{"num_reset": 0, "is_zero": False, "step": 3.0}, {"num_reset": 1, "is_zero": True, "step": 3.0}]
