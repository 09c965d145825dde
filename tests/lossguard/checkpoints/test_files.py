import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from lossguard.checkpoints.files import (
    PARTIAL,
    REPLACED,
    clean_up,
    fingerprint,
    folder_name,
    publish,
    read_manifest,
    read_state,
    steps_to_delete,
    write_manifest,
    write_state,
)
from lossguard.checkpoints.state import Digest, digest
from lossguard.torch import Checkpoints, checkpoints_in
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


CONTENT = {"step": 1, "format": 2, "files": {}, "objects": {"box": {"value": "'\u00e9'"}}}


def test_a_manifest_is_read_as_it_was_written_and_is_json(tmp_path: Path) -> None:
    write_manifest(tmp_path, CONTENT)
    assert read_manifest(tmp_path) == CONTENT
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written.items() > CONTENT.items()


def test_a_manifest_of_a_pre_release_is_refused_in_one_sentence_and_left_untouched(tmp_path: Path) -> None:
    written = json.dumps(CONTENT, indent=1)
    (tmp_path / "manifest.json").write_text(written)
    with pytest.raises(CheckpointError, match=r"manifest[.]json is of a pre-release of Lossguard; continue with"):
        read_manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == written


def test_a_manifest_with_anything_else_in_it_is_damaged(tmp_path: Path) -> None:
    for unknown in ("sha256",):
        (tmp_path / "manifest.json").write_text(json.dumps(CONTENT | {unknown: "0" * 64}, indent=1))
        with pytest.raises(CheckpointError, match=r"manifest[.]json is damaged"):
            read_manifest(tmp_path)


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (10**10, 7, 10**9):
        (tmp_path / folder_name(step)).mkdir()
        write_manifest(tmp_path / folder_name(step), CONTENT)
    (tmp_path / folder_name(8)).mkdir()
    assert list(checkpoints_in(tmp_path)) == [7, 10**9, 10**10]
    assert checkpoints_in(tmp_path / "missing") == {}


def trained_model(folder: Path) -> Checkpoints:
    """Checkpoints of steps 0 and 1 of a model with an optimizer; both hold the state of step 1 now."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(folder, blocking=True, model=model, optimizer=optimizer)
    for step in (0, 1):
        checkpoints.save(step, {"step": step})
        model(torch.ones(2)).sum().backward()
        optimizer.step()
    checkpoints.load(1)
    return checkpoints


def everything_in(checkpoints: Checkpoints) -> Digest:
    return digest({name: instance.state_dict() for name, instance in checkpoints.objects.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return trained_model(tmp_path_factory.mktemp("trained"))


FILES = ["manifest.json", "model.pt", "optimizer.pt", "run.pt"]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
@example(name="manifest.json", place=0.0, change=1)
@example(name="manifest.json", place=0.999999, change=128)
def test_one_changed_byte_anywhere_makes_the_next_older_checkpoint_count_with_one_warning(
    trained: Checkpoints, caplog: pytest.LogCaptureFixture, name: str, place: float, change: int
) -> None:
    checkpoints = trained
    path = checkpoints.directory / "step-000000001" / name
    written = path.read_bytes()
    damaged = bytearray(written)
    damaged[int(place * len(damaged))] ^= change
    try:
        path.write_bytes(damaged)
        checkpoints.load(0)
        older = everything_in(checkpoints)
        caplog.clear()
        assert checkpoints.load(1) == {"step": 0}
        assert everything_in(checkpoints) == older
        assert [record.getMessage()[:33] for record in caplog.records] == ["skipping the checkpoint of step 1"]
    finally:
        path.write_bytes(written)
    caplog.clear()
    assert checkpoints.load(1) == {"step": 1}
    assert (everything_in(checkpoints) != older, caplog.records) == (True, [])


def test_a_changed_digest_in_the_manifest_is_noticed_before_anything_is_loaded(tmp_path: Path) -> None:
    checkpoints = trained_model(tmp_path)
    folder = tmp_path / "step-000000001"
    content = (folder / "manifest.json").read_text()
    assert "float32[2x2] " in content
    (folder / "manifest.json").write_text(content.replace("float32[2x2] ", "float32[2x2] f", 1))
    assert checkpoints.load(1) == {"step": 0}


def saved(num_steps: int, *, every: int, keep: int) -> list[int]:
    """What is there after a run that saves `every` steps and deletes after every save."""
    steps: list[int] = []
    for step in range(0, num_steps, every):
        steps.append(step)
        steps = [each for each in steps if each not in steps_to_delete(steps, keep=keep)]
    return steps


def test_the_head_is_dense_and_gaps_double_behind_it() -> None:
    assert saved(2000, every=10, keep=5) == [0, 1280, 1600, 1760, 1840, 1920, 1950, 1960, 1970, 1980, 1990]


@pytest.mark.slow
@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 3000), st.integers(1, 60), st.integers(1, 8))
def test_any_age_has_a_checkpoint_not_much_older(num_steps: int, every: int, keep: int) -> None:
    """A rollback that wants to go back n steps never has to go further than eight times that and an interval.

    A doubling of the age can be empty for a while, when its oldest has just grown into the next one, which has an
    older one already. Four times is usual; 4.5 times was met (902 steps, one checkpoint kept at the head).
    """
    steps = saved(num_steps, every=every, keep=keep)
    newest = list(range(0, num_steps, every))[-keep:]
    assert steps[-keep:] == newest
    assert steps[0] == 0
    span = max(1, newest[-1] - newest[0])
    for wanted in range(0, steps[-1] + 1, every):
        at_or_before = max(step for step in steps if step <= steps[-1] - wanted)
        assert steps[-1] - at_or_before <= 8 * max(wanted, span) + every


def test_pinned_checkpoints_stay() -> None:
    assert steps_to_delete([0, 1, 2, 3, 4], keep=1, pinned=[2]) == [
        s for s in steps_to_delete([0, 1, 2, 3, 4], keep=1) if s != 2
    ]
    assert steps_to_delete([], keep=3) == []


def test_where_space_is_short_the_newest_and_some_at_doubling_ages_stay_and_what_is_pinned() -> None:
    steps: list[int] = []
    for step in range(0, 20_000, 50):
        steps.append(step)
        steps = [each for each in steps if each not in steps_to_delete(steps, keep=20, most=5, pinned=[1000])]
        assert steps[-2:] == [step - 50, step][step == 0 :]
        assert len(steps) <= 5
    assert [19_950 - each for each in steps] == [18_950, 250, 100, 50, 0]
    assert steps_to_delete([0, 50], keep=1, most=1) == [0]
