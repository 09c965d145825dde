import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard import Guard
from lossguard.torch import Checkpoints
from lossguard.vocabulary.errors import CheckpointError, ConfigurationError
from tests import object_store
from tests.lossguard.checkpoints.box import Box
from tests.lossguard.checkpoints.remote.faulty_store import FaultyStore, Silent, files_at, refusing
from tests.lossguard.recorded import offline
from tests.lossguard.scripted import Indices, ScriptedRun, rollback
from tests.waiting import wait_for


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a place that no other test uses."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    yield name
    FaultyStore.faults.pop(name, None)


@pytest.fixture
def url(name: str) -> str:
    return f"faulty://{name}/run"


class At:
    """Checkpoints of a box at a URL."""

    def __init__(self, url: str, staging: Path, **options: Any) -> None:
        self.box, self.staging = Box(), staging
        self.checkpoints = Checkpoints(url, staging=staging, box=self.box, **options)

    def save(self, *steps: int) -> None:
        """The value of the box is the step."""
        for step in steps:
            self.box.value = step
            self.checkpoints.save(step, {"step": step})
            self.checkpoints.settle(wait=True)

    def fails(self, step: int) -> str:
        """Save, which fails; its message."""
        with pytest.raises((OSError, CheckpointError)) as failed:
            self.save(step)
        return str(failed.value)


def folders_of(name: str) -> set[str]:
    return {path.split("/")[2] for path in files_at(name) if path.startswith("run/files/")}


def manifests_of(name: str) -> list[str]:
    return [path.removeprefix("run/") for path in files_at(name) if path.endswith("manifest.json")]


def test_the_newest_at_or_before_a_step_is_restored_also_by_another_process(url: str, tmp_path: Path) -> None:
    At(url, tmp_path / "a").save(0, 10, 20)
    other = At(url, tmp_path / "b")
    assert other.checkpoints.steps() == other.checkpoints.durable_steps() == [0, 10, 20]
    assert other.checkpoints.durable_tier == "remote"
    assert other.checkpoints.load(19) == {"step": 10}
    assert other.box.value == 10
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".pt"], "nothing stays on the disk"


def test_the_manifest_is_written_last_and_names_size_and_checksum_of_each_file(
    name: str, url: str, tmp_path: Path
) -> None:
    At(url, tmp_path).save(7)
    written = [path for kind, path in FaultyStore.requests if name in path and kind in ("put", "pipe")]
    assert [path.rpartition("/")[2] for path in written] == ["writer.json", "box.pt", "run.pt", "manifest.json"]
    manifest = json.loads(files_at(name)["run/step-000000007/manifest.json"])
    content = files_at(name)[f"run/{manifest['folder']}/box.pt"]
    assert manifest["files"]["box.pt"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("damage", ["bytes", "shorter", "missing", "manifest", "outside"])
def test_a_damaged_checkpoint_is_skipped_and_one_that_is_not_whole_is_not_listed(
    damage: str, name: str, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    At(url, tmp_path).save(0, 10)
    path = f"/{name}/run/step-000000010/manifest.json"
    if damage in ("bytes", "shorter", "missing"):
        folder = json.loads(FaultyStore.store[path].getvalue())["folder"]
        path = f"/{name}/run/{folder}/box.pt"
    content = FaultyStore.store[path].getvalue()
    changed = {
        "bytes": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "shorter": content[:-1],
        "manifest": content[: len(content) // 2],
        "outside": content.replace(b'"files/', b'"/file/'),
    }
    del FaultyStore.store[path]
    if damage in changed:
        FaultyStore().pipe_file(path, changed[damage])
    again = At(url, tmp_path)
    assert again.checkpoints.steps() == ([0, 10] if damage == "bytes" else [0])
    assert again.checkpoints.load(10) == {"step": 0}
    assert again.box.value == 0
    sentence = "skipping the checkpoint of step 10: box.pt is damaged (checksum)"
    assert (sentence if damage == "bytes" else "manifest.json is not a whole checkpoint: ") in caplog.text


def test_without_an_intact_checkpoint_nothing_changes(name: str, url: str, tmp_path: Path) -> None:
    At(url, tmp_path).save(0)
    again = At(url, tmp_path)
    again.box.value = "untouched"
    FaultyStore.faults[name] = refusing("get")
    with pytest.raises(CheckpointError, match=f"{url} holds no intact checkpoint at or before step 5"):
        again.checkpoints.load(5)
    assert again.box.value == "untouched"


@pytest.mark.parametrize(
    ("kinds", "after", "path", "sentence"),
    [
        (("put",), 0, "", "box.pt cannot be written: The provided token has expired"),
        (("put", "find", "pipe", "rm", "cat"), 1, "files", "run.pt cannot be written: The provided token has expired"),
        (("pipe",), 0, "manifest", "manifest.json cannot be written: The provided token has expired"),
        (("cat",), 0, "writer", "writer.json cannot be read: The provided token has expired"),
    ],
)
def test_a_save_that_fails_leaves_the_older_ones_and_its_leftovers_are_deleted_with_the_next(
    kinds: tuple[str, ...], after: int, path: str, sentence: str, name: str, url: str, tmp_path: Path
) -> None:
    at = At(url, tmp_path)
    at.save(0)
    FaultyStore.faults[name] = refusing(*kinds, after=after, path=path)
    assert sentence in at.fails(10)
    assert at.checkpoints.steps() == [0]
    assert at.checkpoints.load(10) == {"step": 0}
    del FaultyStore.faults[name]
    assert At(url, tmp_path).checkpoints.steps() == [0]
    at.save(20)
    assert at.checkpoints.steps() == [0, 20]
    assert manifests_of(name) == ["step-000000000/manifest.json", "step-000000020/manifest.json"]
    assert len(folders_of(name)) == 2


def test_a_file_that_arrives_cut_off_is_not_part_of_a_checkpoint(name: str, url: str, tmp_path: Path) -> None:
    at = At(url, tmp_path)

    def cut(kind: str, path: str) -> None:
        if kind == "find" and "/files/" in path:
            for stored, file in FaultyStore.store.items():
                if stored.startswith(path) and stored.endswith("run.pt"):
                    file.truncate(10)

    FaultyStore.faults[name] = cut
    assert "run.pt is missing or has another size than it was written with" in at.fails(0)
    assert at.checkpoints.steps() == []


def test_a_manifest_whose_writing_failed_and_yet_arrived_is_deleted_before_the_next(
    name: str, url: str, tmp_path: Path
) -> None:
    at = At(url, tmp_path)

    def arrives(kind: str, path: str) -> None:
        if kind == "pipe" and "step-000000010" in path:
            del FaultyStore.faults[name]
            FaultyStore().pipe_file(path, b"whatever was sent")
            raise TimeoutError("no answer")

    FaultyStore.faults[name] = arrives
    assert "no answer" in at.fails(10)
    assert "step-000000010/manifest.json" in manifests_of(name)
    at.save(20)
    assert manifests_of(name) == ["step-000000020/manifest.json"]


def test_a_step_may_be_saved_again_and_is_whole_at_every_moment(name: str, url: str, tmp_path: Path) -> None:
    at = At(url, tmp_path)
    at.save(10)
    FaultyStore.faults[name] = refusing("pipe", path="manifest")
    at.fails(10)
    assert At(url, tmp_path).checkpoints.load(10) == {"step": 10}
    assert at.checkpoints.steps() == [], "it may be the earlier one or the later one that is there"
    del FaultyStore.faults[name]
    at.box.value = "later"
    at.checkpoints.save(10, {"step": 10})
    at.checkpoints.settle(wait=True)
    again = At(url, tmp_path)
    again.checkpoints.load(10)
    assert again.box.value == "later"
    assert len(folders_of(name)) == 1


def test_retention_deletes_there_the_manifest_first(name: str, url: str, tmp_path: Path) -> None:
    at, local = At(url, tmp_path, keep=2), Checkpoints(tmp_path / "local", keep=2, blocking=True, box=Box())
    for checkpoints in (at.checkpoints, local):
        checkpoints.pin([10])
    at.save(0, 10, 20, 30, 40, 50)
    for step in (0, 10, 20, 30, 40, 50):
        local.save(step, {})
    assert at.checkpoints.steps() == local.steps() == [0, 10, 30, 40, 50]
    deleted = [path for kind, path in FaultyStore.requests if kind == "rm" and name in path]
    assert [path.rpartition("/")[2] for path in deleted] == ["manifest.json", "box.pt", "run.pt"]
    assert len(folders_of(name)) == 5


def test_a_place_that_refuses_to_delete_is_reported_once_and_saving_goes_on(
    name: str, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at = At(url, tmp_path, keep=1)
    FaultyStore.faults[name] = refusing("rm")
    at.save(0, 10, 20, 30)
    assert at.checkpoints.steps() == [0, 10, 20, 30]
    assert caplog.text.count("an old checkpoint could not be deleted: ") == 1


def test_what_a_rollback_leaves_is_not_found_by_a_restart_and_some_stays_for_a_replay(
    name: str, url: str, tmp_path: Path
) -> None:
    at = At(url, tmp_path)
    at.save(0, 10, 20, 30)
    at.checkpoints.discard_after(10)
    assert at.checkpoints.steps() == At(url, tmp_path).checkpoints.steps() == [0, 10]
    assert [path for path in manifests_of(name) if "discarded" in path] == [
        "discarded/step-000000020/manifest.json",
        "discarded/step-000000030/manifest.json",
    ]
    at.save(20)
    again = At(url, tmp_path)
    again.checkpoints.lock(wait=1)
    again.checkpoints.unlock()
    assert len(folders_of(name)) == 5, "the files of the discarded ones stay"
    again.checkpoints.discard_after(10)
    again.save(30)
    assert len(folders_of(name)) == 4


def test_what_a_rollback_could_not_delete_is_deleted_before_anything_new_is_published(
    name: str, url: str, tmp_path: Path
) -> None:
    at = At(url, tmp_path)
    at.save(0, 10, 20)
    FaultyStore.faults[name] = refusing("rm", "cat", "pipe")
    with pytest.raises(OSError, match="expired"):
        at.checkpoints.discard_after(0)
    assert at.checkpoints.steps() == [0]
    assert "cannot be" in at.fails(5)
    del FaultyStore.faults[name]
    at.checkpoints.lock(wait=1)
    assert at.checkpoints.steps() == [0], "nor does another loop of this process find it"
    at.checkpoints.unlock()
    at.save(5)
    assert At(url, tmp_path).checkpoints.steps() == at.checkpoints.steps() == [0, 5]


def test_the_last_process_that_begins_to_write_is_the_only_one(name: str, url: str, tmp_path: Path) -> None:
    first, second = At(url, tmp_path / "a"), At(url, tmp_path / "b")
    first.checkpoints.lock(wait=1)
    first.save(0)
    second.checkpoints.lock(wait=1)
    sentence = first.fails(10)
    assert f"process {os.getpid()}@" in sentence
    assert f"saves its checkpoints at {url} since" in sentence
    second.save(20)
    assert manifests_of(name) == ["step-000000000/manifest.json", "step-000000020/manifest.json"]
    assert len(folders_of(name)) == 2


def test_a_new_writer_deletes_what_a_killed_one_has_left(name: str, url: str, tmp_path: Path) -> None:
    At(url, tmp_path).save(0)
    FaultyStore().pipe_file(f"/{name}/run/files/000000010-abc/box.pt", b"half a checkpoint")
    left = next(tmp_path.glob("*/rank-0")) / ".partial-10-4711"
    left.mkdir()
    (left / "box.pt").write_bytes(b"half a checkpoint")
    at = At(url, tmp_path)
    assert not left.exists()
    assert len(folders_of(name)) == 2, "who only reads deletes nothing"
    at.checkpoints.lock(wait=1)
    assert len(folders_of(name)) == 1
    assert at.checkpoints.load(10) == {"step": 0}


def test_a_place_that_cannot_be_listed_or_written_is_one_sentence_before_the_first_step(
    name: str, url: str, tmp_path: Path
) -> None:
    FaultyStore.faults[name] = refusing("pipe")
    with pytest.raises(ConfigurationError, match=r"checkpoints cannot be saved: .*writer.json cannot be written: The"):
        list(Guard(ScriptedRun(), checkpoints=At(url, tmp_path).checkpoints).steps(Indices(), 2))
    FaultyStore.faults[name] = refusing("find")
    with pytest.raises(ValueError, match=f"checkpoints cannot be kept at {url}: .* cannot be listed: The provided"):
        At(url, tmp_path)


def test_a_staging_folder_that_cannot_be_made_is_one_sentence(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file cannot hold their files on the way \(staging\): Not a directory"):
        At(url, tmp_path / "file")
    with pytest.raises(ValueError, match="is no URL of another place: leave out storage_options"):
        Checkpoints(tmp_path / "c", storage_options={})


def test_a_quick_look_finds_what_is_missing(name: str, url: str, tmp_path: Path) -> None:
    at = At(url, tmp_path)
    at.save(0, 10, 20)
    assert at.checkpoints.check(0) is None
    folder = json.loads(files_at(name)["run/step-000000010/manifest.json"])["folder"]
    del FaultyStore.store[f"/{name}/run/{folder}/box.pt"]
    assert f"{folder}/box.pt is missing or has another size" in str(at.checkpoints.check(10))
    del FaultyStore.store[f"/{name}/run/step-000000020/manifest.json"]
    assert at.checkpoints.check(20) == f"{url}/step-000000020/manifest.json is no longer there"
    FaultyStore.faults[name] = refusing("cat")
    assert "expired" in str(at.checkpoints.check(0))


def train(at: At, run: ScriptedRun, until: int, every: int) -> Iterator[int]:
    """The steps of a guarded loop; the box counts them."""
    for step, _ in Guard(run, checkpoints=at.checkpoints, every=every).steps(Indices(), until):
        at.box.value = step + 1
        yield step


def test_a_loop_does_not_wait_for_an_upload_and_leaves_out_what_is_due_meanwhile(
    name: str, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at, run, silent = At(url, tmp_path, memory=8, memory_every=1), ScriptedRun(), Silent("put")
    FaultyStore.faults[name] = silent
    steps = train(at, run, 9, every=2)
    assert [next(steps) for _ in range(8)] == list(range(8)), "the first checkpoint is still on its way"
    assert run.restorable == list(range(1, 8)), "what is in memory, and nothing that is not whole there"
    silent.answer.set()
    assert list(steps) == [8]
    assert at.checkpoints.durable_steps() == [0, 8, 9] or at.checkpoints.durable_steps() == [0, 9]
    assert caplog.text.count("an earlier one has been uploaded for more than") == 1
    assert {each.tier for each in run.tiers} == {"memory", "remote"}


def test_a_rollback_does_not_wait_for_an_upload_and_gives_it_up(name: str, url: str, tmp_path: Path) -> None:
    at, silent = At(url, tmp_path, memory=8, memory_every=1), Silent("put")
    run = ScriptedRun({6: rollback(rewind_to=2)})
    steps = train(at, run, 9, every=3)
    seen = [next(steps) for _ in range(3)]  # step 0 is saved, step 3 will be
    at.checkpoints.settle(wait=True)
    FaultyStore.faults[name] = silent
    seen += [next(steps)]
    assert silent.asked.wait(60)
    seen += [next(steps) for _ in range(2)]
    assert seen == [0, 1, 2, 3, 4, 2], "rolled back from memory while the upload stands still"
    silent.answer.set()
    assert list(steps) == [3, 4, 5, 6, 7, 8]
    assert 9 in At(url, tmp_path).checkpoints.steps()
    wait_for(lambda: not uploading(), seconds=60, what="the given-up upload has ended")


@pytest.mark.parametrize("durable", [2, 3])
def test_a_restart_never_goes_on_from_what_a_rollback_without_a_network_could_not_delete(
    durable: int, name: str, url: str, tmp_path: Path
) -> None:
    """The process dies before its next save, which would have deleted it."""

    def loop(at: At) -> Generator[int, None, None]:
        with offline(tmp_path / "spool", run_id="r") as run:
            for step, _ in Guard(run, checkpoints=at.checkpoints, every=2).steps(Indices(), 6):
                at.box.value = step + 1
                if step == 5:
                    run.inbox.receive([rollback(rewind_to=durable)])  # type: ignore[attr-defined]
                    FaultyStore.faults[name] = refusing("rm", "pipe", "put")
                yield step
                at.checkpoints.settle(wait=True)

    before = loop(At(url, tmp_path, memory=8, memory_every=1))
    assert [next(before) for _ in range(7)] == [0, 1, 2, 3, 4, 5, durable]
    before.close()
    del FaultyStore.faults[name]
    assert At(url, tmp_path).checkpoints.steps() == [0, 2, 4]
    after = At(url, tmp_path)
    assert next(loop(after)) == 2
    assert after.checkpoints.steps() == [0, 2]


def uploading() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "lossguard-upload"]


KILLED = """
import os, signal, sys
from lossguard.torch import Checkpoints
from tests.lossguard.checkpoints.box import Box
import lossguard.checkpoints.remote.files as remote_files
box = Box(list(range(100_000)))
checkpoints = Checkpoints(sys.argv[1], staging=sys.argv[2], blocking=True, box=box)
checkpoints.save(0, {"step": 0})
put = remote_files.RemoteFiles.put
def dies(self, path, name):
    if name.endswith("run.pt"):
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, path, name)
remote_files.RemoteFiles.put = dies
checkpoints.save(10, {"step": 10})
"""


@pytest.mark.system
@pytest.mark.slow(8)
@pytest.mark.needs("moto_server")
def test_a_real_object_store_survives_kills_and_expired_credentials(
    object_store_server: object_store.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for variable, value in object_store_server.environment.items():
        monkeypatch.setenv(variable, value)
    url = object_store_server.create_bucket("checkpoints") + "/a run"
    arguments = [sys.executable, "-c", KILLED, url, str(tmp_path)]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
    assert killed.returncode == -9, killed.stderr
    again = At(url, tmp_path)
    assert again.checkpoints.steps() == [0]
    assert again.checkpoints.load(10) == {"step": 0}
    run = ScriptedRun({6: rollback(rewind_to=2)})
    at = At(url + "/other", tmp_path)
    steps = train(at, run, 12, every=2)
    seen = []
    for _ in range(8):
        seen.append(next(steps))
        at.checkpoints._join()  # an upload takes longer than such a step
    assert seen == [0, 1, 2, 3, 4, 2, 3, 4]
    object_store_server.refuse_requests(after=2)
    for step in (5, 6, 7, 8):
        assert next(steps) == step
        at.checkpoints._join()
    object_store_server.accept_requests()
    assert [next(steps) for _ in range(2)] == [9, 10]
    assert list(steps) == [11]
    assert caplog.text.count("a checkpoint could not be saved; the run continues without it: ") == 1
    assert "the server refuses the credentials (InvalidAccessKeyId); check AWS_ACCESS_KEY_ID" in caplog.text
    assert run.restorable == At(url + "/other", tmp_path).checkpoints.steps()
    assert {0, 2, 12} <= set(run.restorable)
    restored = At(url + "/other", tmp_path)
    assert restored.checkpoints.load(12)["step"] == 12
    assert restored.box.value == 12


def test_a_state_without_a_certificate_leaves_no_trace_there_and_none_of_the_others_is_deleted_for_it(
    url: str, name: str, tmp_path: Path
) -> None:
    box, weights = Box(), torch.zeros(3)
    checkpoints = Checkpoints(url, staging=tmp_path / "a", keep=1, box=box, weights=Holding(weights))
    for step in (0, 10):
        checkpoints.save(step, {"step": step})
        checkpoints.settle(wait=True)
    there = files_at(name)
    weights[1] = torch.nan
    for step in (20, 30, 40):
        checkpoints.save(step, {"step": step})
        checkpoints.settle(wait=True)
    assert checkpoints.take_uncertified() == [(step, "weights.held holds NaN") for step in (20, 30, 40)]
    assert files_at(name) == there
    again = Checkpoints(url, staging=tmp_path / "b", box=Box(), weights=Holding(restored := torch.ones(3)))
    assert again.steps() == [0, 10]
    assert again.load(40)["step"] == 10
    assert restored.tolist() == [0.0, 0.0, 0.0]


class Holding:
    """An object with a tensor."""

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"held": self.held}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.held.copy_(state["held"])
