"""What the scenarios of `agreement`, `gating`, `token_means`, `skipping` and `saving` found on 2 and on 4 ranks.

Faults occur on the last rank, orders arrive at rank 0.
"""

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
from tests.ranks.skipping import ACCELERATE, EPOCHS, NUM, SKIP_FROM, SKIP_TO
from tests.ranks.token_means import TOKENS, step, trained

pytestmark = pytest.mark.system
Results = list[dict[str, Any]]


# Ranks that agree


def test_an_order_is_executed_by_all_ranks_at_the_same_boundary(results: Results) -> None:
    rank_0, *others = (each["an_order_of_rank_0"] for each in results)
    assert rank_0["seen"][6:8] == [[6, 6], [4, 9]]
    assert rank_0["model"] == [0, 1, 2, 3, 9, 10, 11, 12, 13]
    assert all({**each, "recorded": rank_0["recorded"]} == rank_0 for each in others)


def test_only_rank_0_opens_the_segment_and_answers(results: Results) -> None:
    applied = {"rewound_to": 4, "skip_from": 4, "skip_to": 9, "lr_scale": 0.5, "reason": "spike", "compared": False}
    segments = [["start", 0, None, None], ["rollback", 4, 1, applied]]
    assert [each["an_order_of_rank_0"]["recorded"] for each in results] == [segments, *([] for _ in results[1:])]


def test_a_remedy_is_applied_and_reverted_on_all_ranks_and_one_that_fails_on_a_rank_on_none(results: Results) -> None:
    last, ordered = len(results) - 1, [each["an_order_with_remedies"] for each in results]
    assert [each["changes"] for each in ordered] == [["on", "on here", "undone", "off"]] * last + [["on", "off"]]
    assert all(each["seen"][7:] == [[step, step] for step in range(4, 9)] for each in ordered)
    applied = ordered[0]["recorded"][1][3]
    why = f"the remedy 'fail_on_last' could not be applied: rank {last}: RuntimeError: no such group"
    assert (applied["remedies"], applied["detail"]) == ({"raise": 7}, why)


def test_all_ranks_resume_from_the_older_checkpoint_that_rank_0_was_given(results: Results) -> None:
    for each in results:
        resumed = each["an_older_checkpoint_that_rank_0_was_given"]
        assert (resumed["steps"], resumed["left"]) == ([4, 5, 6, 7], [0, 2, 4, 6, 8])
        assert resumed["refused"] == (
            "resume_from=5: no checkpoint of that step can be restored; choose one of 0, 2, 4, 6, 8"
        )


def test_an_order_that_comes_after_the_last_step_is_executed_before_the_end(results: Results) -> None:
    seen = [[step, step] for step in (*range(6), 4, 5)]
    assert all(each["an_order_at_the_last_step"]["seen"] == seen for each in results)


def test_a_signal_on_any_rank_stops_all_at_the_same_step_with_a_checkpoint(results: Results) -> None:
    for each in results:
        stopped = each["a_signal_on_the_last_rank"]
        assert [step for step, _ in stopped["seen"]] == [0, 1, 2, 3, 4]
        assert (stopped["steps"], stopped["by"]) == ([0, 2, 4, 5], 15)


def test_a_hold_holds_all_until_the_release(results: Results) -> None:
    assert all(each["a_hold_and_its_release"]["steps"] == [0, 2, 3, 4, 6] for each in results)
    assert results[0]["a_hold_and_its_release"]["recorded"][1:] == [["accepted", 1], ["accepted", 2]]


def test_a_kill_file_that_rank_0_sees_ends_a_hold_on_all_ranks(results: Results) -> None:
    assert all(each["a_kill_file_while_held"]["model"] == list(range(6)) for each in results)
    assert results[0]["a_kill_file_while_held"]["recorded"][1:] == [["accepted", 1], ["resume", 3, None, None]]


def test_a_signal_ends_a_hold_on_all_ranks(results: Results) -> None:
    ends = [(each["a_signal_while_held"]["model"], each["a_signal_while_held"]["by"]) for each in results]
    assert ends == [([0, 1, 2], 15)] * len(results)


def test_a_skipped_sample_that_comes_again_on_any_rank_is_reported_by_rank_0(results: Results) -> None:
    rank_0, *others = (each["a_skipped_sample_that_returns_on_the_last_rank"] for each in results)
    kinds = {kind for kind, _ in rank_0["events"]}
    assert kinds == {"skipped_sample_returned"}
    first = rank_0["events"][0][1]
    assert (first["rows"], first["order"], first["batch_index"] >= 60) == (4, 1, True)
    assert all(each["events"] == [] and each["steps"] == rank_0["steps"] for each in others)


@pytest.mark.parametrize("kind", ["loader", "drawn"])
def test_no_rank_trains_a_skipped_sample_again(results: Results, kind: str) -> None:
    ranks = [each["skipped_samples_of_each_kind_of_data"][kind] for each in results]
    batches = [{tuple(numbers) for _, numbers, _ in [*each["before"], *each["after"]]} for each in ranks]
    assert not batches[0] & batches[1], "each rank has batches of its own"
    for each in ranks:
        indices = [index for index, *_ in each["after"]]
        assert indices[:3] == [8, 9, 13]
        assert each["after"][:2] == each["before"][8:10]
        assert (each["bad_after"], each["events"]) == ([], [])


def test_data_that_does_not_repeat_itself_on_any_rank_ends_the_skips_on_all(results: Results) -> None:
    rank_0, *others = (each["data_that_does_not_repeat_itself_on_the_last_rank"] for each in results)
    assert rank_0["events"] == [["data_not_repeated", {"step": 39, "batch_index": 38, "rows": 4}]]
    assert (rank_0["can_skip"], [record[0] for record in rank_0["recorded"]]) == (
        False,
        ["start", "rollback", "refused"],
    )
    assert all((each["steps"], each["skips"]) == (rank_0["steps"], 1) for each in [rank_0, *others])


def test_a_restore_that_fails_on_one_rank_takes_all_back_to_the_newest_checkpoint(results: Results) -> None:
    scenarios = [each["a_restore_that_fails_on_the_last_rank"] for each in results]
    assert all(scenario["model"] == list(range(9)) for scenario in scenarios)
    refused = ["refused", 1, f"restoring failed: RuntimeError: rank {len(results) - 1}: RuntimeError: out of memory"]
    assert scenarios[0]["recorded"][1:] == [refused, ["rewind", 6, None, None]]


def test_a_restore_that_is_not_exact_on_one_rank_stops_all(results: Results) -> None:
    raised = [each["a_restore_that_is_not_exact_on_the_last_rank"]["raised"] for each in results]
    assert raised == [f"rank {len(results) - 1}: the lr was 1 and is 2"] * (len(results) - 1) + [
        "the lr was 1 and is 2"
    ]


def test_ranks_that_close_leave_no_thread_behind_and_can_exchange_again(results: Results) -> None:
    for each in results:
        before, open_, closed, open_again, closed_again = each["an_exchange_after_a_close"]["threads"]
        assert before == closed == closed_again < open_ == open_again
        assert each["an_exchange_after_a_close"]["received_order"]


def test_ranks_at_different_steps_raise_an_error(results: Results) -> None:
    last = 6 + len(results)
    raised = f"the ranks are at different steps, 7 to {last}: they cannot continue together"
    assert all(each["ranks_at_different_steps"]["raised"] == raised for each in results)


def test_short_steps_share_an_exchange_and_all_ranks_still_receive_an_order_at_the_same_boundary(
    results: Results,
) -> None:
    """Exchanges begin at boundaries 0, 1 and 17, and each is completed at the next."""
    assert all(each["an_order_from_the_fourth_boundary_on"] == {"0 s": 4, "60 s": 33} for each in results)


def test_a_non_finite_number_on_one_rank_is_non_finite_on_all(results: Results) -> None:
    mean, highest = repr((len(results) - 1) / 2), repr(float(len(results) - 1))
    numbers = [mean, highest, "nan", "nan", "nan", mean]
    assert all(each["a_nan_on_the_last_rank"]["numbers"] == numbers for each in results)


def test_all_ranks_share_the_run_of_rank_0_and_only_rank_0_records(results: Results, folder: Any) -> None:
    (first, second), *others = (each["one_run_for_all"]["ids"] for each in results)
    assert first != second
    assert all(ids == [first, second] for ids in others)
    assert [each["one_run_for_all"]["records"] for each in results] == [True] + [False] * len(others)
    assert len(list((folder / "p" / first).glob("*.spool"))) == 1


def test_an_order_ends_all_processes_at_the_same_boundary_to_be_started_again(results: Results) -> None:
    left = [each["a_restart_for_an_order"] for each in results]
    assert {(each["code"], each["steps"]) for each in left} == {(75, left[0]["steps"])}
    assert left[0]["steps"] < 99
    assert left[0]["recorded"] == [["resume", 2, None, None], ["accepted", 1], ["accepted", 2]]
    assert [each["recorded"] for each in left[1:]] == [[] for _ in left[1:]]


# Gates


def test_a_nan_on_one_rank_skips_the_update_on_all(results: Results) -> None:
    for each in results:
        for kind, found in each["a_nan_on_one_rank_skips_the_update_on_all"].items():
            assert found == {"verdicts": [0.0, 0.0, 1.0, 0.0], "moves": [True, False, True]}, kind


# A step of several ranks equals that of one process with all their tokens


@pytest.mark.parametrize("name", TOKENS)
def test_terms_and_gradient_are_those_of_one_process_with_all_tokens(results: Results, name: str) -> None:
    alone = step(TOKENS[name])
    assert alone["num_tokens"] == sum(TOKENS[name])
    for each in results:
        for found in each["steps_over_all_tokens"][name]:
            assert found.keys() == alone.keys()
            for key, value in found.items():
                assert value == pytest.approx(alone[key], abs=1e-6, rel=1e-6), key


def test_a_nan_on_one_rank_is_nan_on_all_beside_a_rank_without_tokens(results: Results) -> None:
    for each in results:
        found = each["a_nan_among_uneven_tokens"]
        assert [found[key] for key in ("loss", "cross_entropy", "log_z", "log_z_max", "grad_norm")] == ["nan"] * 5
        assert found["num_tokens"] == "12"


def test_plain_losses_have_a_mean_over_all_ranks(results: Results) -> None:
    last, size = len(results) - 1, len(results)
    for each in results:
        found = each["plain_losses"]
        assert found["mean"] == [pytest.approx((1 + last / 2 + 2) / 2), last]
        assert found["one"] == [pytest.approx(1 + last / 2), 0]
        assert found["weighed"] == [pytest.approx((3 + 5 * size) / (3 + size)), 0]


def test_the_trainer_on_padded_batches_reports_what_one_process_reports(results: Results, tmp_path: Path) -> None:
    names = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss")
    alone = [[metrics[name] for name in names] for metrics in trained(tmp_path)]
    for each in results:
        for rows in each["the_trainer_on_padded_batches"].values():
            for metrics, expected in zip(rows, alone, strict=True):
                assert [metrics[name] for name in names] == pytest.approx(expected, rel=1e-6)


# Skipped samples stay skipped on whichever rank they come again


def flat(nested: Any) -> set[int]:
    return {sample for batch in nested for sample in batch}


@pytest.mark.parametrize("name", ["distributed", "each its own order", *ACCELERATE])
def test_a_sample_that_was_skipped_on_one_rank_comes_on_no_rank_in_later_epochs(results: Results, name: str) -> None:
    ranks = [each["samples_that_were_skipped_on_any_rank"][name] for each in results]
    ((first, end, skipped),) = ranks[0]["recorded"][1][3]["samples"]
    assert (first, end) == (SKIP_FROM, SKIP_TO)
    seen = [flat(each["skipped"]) for each in ranks]  # before the rollback
    assert all(seen)
    assert set(skipped) >= set().union(*seen)
    lengths = {len(each["epochs"][-1]) for each in ranks}
    assert len(lengths) == 1
    for epoch in range(1, EPOCHS):
        trained = [flat(each["epochs"][epoch]) for each in ranks]
        assert not set().union(*trained) & set(skipped)
        assert set().union(*trained) == set(range(NUM)) - set(skipped)
        by_rank = [list(map(len, each["epochs"][epoch])) for each in ranks]
        assert name == "each its own order" or all(sizes == by_rank[0] for sizes in by_rank)


# Checkpoints that several ranks write


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
    drawn = [each["a_checkpoint_of_one_process"][kind]["drawn"] for each in two]
    assert drawn[0] == alone["drawn"]
    assert drawn[1] != drawn[0], "further ranks have random numbers of their own"


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


def test_a_framework_whose_files_rank_0_cannot_flush_fails_on_all_ranks(two: Results) -> None:
    reason = "OSError: [Errno 28] No space left on device"
    found = [each["a_framework_whose_files_cannot_be_flushed"] for each in two]
    assert found == [{"problem": reason, "steps": []}, {"problem": f"RuntimeError: rank 0: {reason}", "steps": []}]


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


def test_fsdp_beside_tensor_parallelism_is_saved_and_restored_and_copies_must_be_equal(
    four: Results, folder: Path
) -> None:
    found = [each["shards_beside_tensor_parallelism"] for each in four]
    assert all(each["restored"] == each["saved"] == found[0]["saved"] for each in found)
    assert restored(Small("alone", folder / "tensor"))["full_state"] == found[0]["saved"]
    reason = "ranks 0, 1 differ in model.2.bias from [0], and in 1 other tensor"
    assert [each["uncertified"] for each in found] == [[[3, reason]]] * 4


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


def test_a_checkpoint_of_ranks_with_different_tensors_is_refused_on_all_of_them(four: Results) -> None:
    """Rank 0's part alone says which values a state has, so that a restore would lose the others."""
    found = [each["different_tensors_on_each_rank"] for each in four]
    assert all("the ranks have different tensors" in each["error"] for each in found)
    assert [each["files"] for each in found] == [[]] * 4


def test_each_rank_gets_its_own_statistics_and_objects_back(two: Results) -> None:
    found = [each["states_that_differ_by_rank"] for each in two]
    assert [each["seen"] for each in found] == [[0, 0, 0], [1, 1, 1]]
    assert all(all(each["is_same"].values()) for each in found)
    assert found[0]["mean"] != found[1]["mean"]


def test_a_sharded_tensor_of_any_object_belongs_to_all_ranks_however_it_is_saved(two: Results) -> None:
    found = {"own": [], "is_same": True}
    assert [each["sharded_averages"] for each in two] == [{"blocking=True": found, "blocking=False": found}] * 2


def test_a_framework_that_writes_rank_0s_statistics_restores_them_on_all_ranks(two: Results) -> None:
    first, second = (each["statistics_that_a_framework_writes_of_rank_0"] for each in two)
    assert first["before"] != second["before"]
    assert first["after"] == second["after"] == first["before"]


def test_where_the_data_of_one_rank_cannot_be_saved_all_go_on_without_a_checkpoint(two: Results) -> None:
    found = [each["data_whose_state_fails_on_one_rank"] for each in two]
    assert found == [{"steps": [0, 1, 2, 3, 4], "restorable": []}] * 2


def test_of_a_sharded_tensor_only_the_damaged_shard_is_reset_and_the_step_count_stays(two: Results) -> None:
    found = [each["damaged_moments_of_a_shard"] for each in two]
    assert found == [{"num_reset": 0, "is_zero": False, "step": 3.0}, {"num_reset": 1, "is_zero": True, "step": 3.0}]
