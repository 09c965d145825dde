import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lossguard.checkpoints.files import fingerprint, read_manifest, write_manifest, write_state
from lossguard.torch import Checkpoints
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, CheckpointTooOld, ConfigurationError
from tests.lossguard.checkpoints.box import Box
from tests.lossguard.checkpoints.payloads import PAYLOADS, runs_when_trusted
from tests.waiting import eventually


def three(folder: Path, box: Box) -> Checkpoints:
    checkpoints = Checkpoints(folder, blocking=True, box=box)
    for step in (0, 10, 20):
        box.value = step
        checkpoints.save(step, {"step": step})
    return checkpoints


def test_the_newest_at_or_before_the_step_is_restored(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    assert checkpoints.steps() == [0, 10, 20]
    assert checkpoints.load(19) == {"step": 10}
    assert box.value == 10


def test_a_folder_that_cannot_be_listed_is_an_error_before_anything_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)

    def refuse(_folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as away:
        for name in ("listdir", "scandir"):
            away.setattr(os, name, refuse)
        with pytest.raises(CheckpointError, match=r"cannot be listed: .*Permission denied") as caught:
            checkpoints.load(10)
    assert (caught.type, box.value) == (CheckpointError, 20)


WITHOUT = """
import sys, types, torch
without = types.ModuleType("torch.distributed")
without.is_available, without.ProcessGroup = lambda: False, object  # all that such a torch has of it
torch.distributed = sys.modules["torch.distributed"] = without
sys.modules["torch._C._distributed_c10d"] = None
from lossguard.torch import Checkpoints, causal_lm_loss, over_ranks
model = torch.nn.Linear(2, 2)
checkpoints = Checkpoints(sys.argv[1], blocking=True, model=model)
checkpoints.save(3, {"step": 3})
terms, norm = over_ranks(causal_lm_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long)), torch.ones(()))
print(checkpoints.load(3), float(norm))
"""


@pytest.mark.slow
def test_a_torch_that_was_built_without_distributed_will_do(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{'step': 3} 1.0\n", "")


def damage_bytes(folder: Path) -> None:
    path = folder / "box.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(folder: Path) -> None:
    path = folder / "run.pt"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_file(folder: Path) -> None:
    (folder / "box.pt").unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def forget_a_file(folder: Path) -> None:
    manifest = read_manifest(folder)
    del manifest["files"]["box.pt"]
    write_manifest(folder, manifest)


def write_sealed(folder: Path, name: str, state: Any) -> None:
    manifest = read_manifest(folder)
    manifest["files"][name] = write_state(folder / name, state)
    write_manifest(folder, manifest)


def store_a_hostile_tensor(folder: Path) -> None:
    value = torch.sparse_coo_tensor(torch.tensor([[10**9]]), torch.ones(1), (4,), check_invariants=False)
    write_sealed(folder, "box.pt", {"value": value})


def store_no_state_of_a_run(folder: Path) -> None:
    write_sealed(folder, "run.pt", {"state": [1]})


HARMS = [
    damage_bytes, truncate, lose_a_file, garble_the_manifest, forget_a_file, store_a_hostile_tensor,
    store_no_state_of_a_run,
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    harm(tmp_path / "step-000000020")
    assert checkpoints.load(20) == {"step": 10}
    assert "skipping the checkpoint of step 20" in caplog.text
    assert box.value == 10


def test_without_an_intact_checkpoint_nothing_changes(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    for folder in tmp_path.glob("step-*"):
        damage_bytes(folder)
    with pytest.raises(CheckpointError, match="no intact checkpoint at or before step 20"):
        checkpoints.load(20)
    assert box.value == 20


def test_a_damaged_checkpoint_leads_no_further_back_than_the_oldest_step_that_is_asked_for(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    damage_bytes(tmp_path / "step-000000020")
    with pytest.raises(CheckpointTooOld, match="no checkpoint from step 11 to step 20 is intact"):
        checkpoints.load(20, not_before=11)
    assert box.value == 20
    assert checkpoints.load(20, not_before=10) == {"step": 10}
    assert box.value == 10


def test_a_save_that_was_killed_leaves_no_checkpoint_and_the_next_sweeps_up(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    left = tmp_path / ".partial-30-1"
    left.mkdir()
    (left / "box.pt").write_bytes(b"half")
    assert checkpoints.steps() == [0, 10, 20]
    checkpoints.save(30, {"step": 30})
    assert not left.exists()


def test_what_a_rollback_has_left_is_not_restored_from_memory_either(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, memory=3, blocking=True, box=Box())
    for step in (3, 6, 9):
        checkpoints.save_in_memory(step, {"step": step})
    checkpoints.discard_after(6)
    assert checkpoints.steps() == checkpoints.memory_steps() == [3, 6]


def test_what_is_not_in_the_memory_of_all_ranks_is_restored_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank had too little memory."""
    checkpoints = Checkpoints(tmp_path, memory=3, blocking=True, box=Box())
    for step in (3, 6):
        checkpoints.save(step, {"step": step})
        checkpoints.save_in_memory(step, {"step": -step})
    gather = checkpoints.ranks.gather
    monkeypatch.setattr(
        checkpoints.ranks, "gather", lambda found: [*gather(found), [3]] if found == [3, 6] else gather(found)
    )
    assert [checkpoints.load(step) for step in (3, 6)] == [{"step": -3}, {"step": 6}]


def test_all_of_a_checkpoint_has_reached_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, flushed = os.fsync, set[tuple[int, bool]]()  # (file, whether the checkpoint had its name)

    def noted(fd: int) -> None:
        flushed.add((os.fstat(fd).st_ino, place.exists()))
        fsync(fd)

    place = tmp_path / "step-000000000"
    checkpoints = Checkpoints(tmp_path, blocking=True, box=Box())
    monkeypatch.setattr(os, "fsync", noted)
    checkpoints.save(0, {})
    assert {(path.stat().st_ino, False) for path in (place, *place.iterdir())} <= flushed
    assert (tmp_path.stat().st_ino, True) in flushed, "its name, too"


def test_a_save_that_fails_leaves_the_earlier_checkpoint_of_that_step(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    box.value = object()
    with pytest.raises(CheckpointError, match="'box' contains more than tensors and plain values"):
        checkpoints.save(20, {"step": 20})
    assert checkpoints.load(20) == {"step": 20}
    assert not list(tmp_path.glob(".partial*"))


def test_what_is_pinned_is_kept_as_long_as_it_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1, blocking=True)
    checkpoints.pin([0, 1, 2])
    for step in range(9):
        checkpoints.save(step, {})
    assert checkpoints.steps()[:3] == [0, 1, 2]
    checkpoints.pin([])
    checkpoints.save(9, {})
    assert checkpoints.steps()[:3] != [0, 1, 2]


def test_a_bound_in_bytes_is_kept_to_and_said_with_the_first_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=20, keep_bytes=3_500_000, blocking=True, model=nn.Linear(500, 500))
    checkpoints.save(0, {})
    (said,) = caplog.messages
    assert re.fullmatch(r".*: keep=20 needs 19\.\d MiB, keep_bytes is 3\.3 MiB: 3 checkpoints stay", said)
    for step in range(10, 100, 10):
        checkpoints.save(step, {})
    assert (checkpoints.steps(), caplog.messages) == ([60, 80, 90], [said])
    assert checkpoints.expected(10, 100)[0] == 3


def test_checkpoints_take_at_most_half_of_the_disk_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, blocking=True, model=nn.Linear(500, 500))
    num_free = 8_400_000

    def free(path: Path) -> Any:
        used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return shutil._ntuple_diskusage(num_free, used, num_free - used)

    monkeypatch.setattr(shutil, "disk_usage", free)
    assert checkpoints.expected(10, 300) == (4, 4 * 1_002_000)
    for step in range(0, 300, 10):
        checkpoints.save(step, {})
    assert checkpoints.steps() == [240, 260, 280, 290]
    (said,) = caplog.messages
    assert said.endswith("half of the disk's room (keep_bytes=) is 4.0 MiB: 4 checkpoints stay")
    num_free = 1_000_000  # somebody else has filled it
    checkpoints.save(300, {})
    assert checkpoints.steps() == [300]
    assert caplog.messages[1].endswith(": 1 checkpoint stays")


def test_a_save_in_the_background_keeps_the_state_of_its_moment(tmp_path: Path) -> None:
    model = nn.Linear(300, 300)
    checkpoints = Checkpoints(tmp_path, model=model)
    for step in range(5):
        with torch.no_grad():
            model.weight.fill_(step)
        checkpoints.save(step, {"step": step})
        with torch.no_grad():
            model.weight.fill_(-1)
    assert checkpoints.settle(wait=True)
    assert not checkpoints.settle()
    for step in range(5):
        assert checkpoints.load(step) == {"step": step}
        assert model.weight.eq(step).all()


FILLING = """
import resource, sys, torch
from lossguard.torch import Checkpoints
import lossguard
model = torch.nn.Linear(100, 100)
checkpoints = Checkpoints(sys.argv[1], model=model)
run = lossguard.init("p", mode="off")
done = []
for step, _ in lossguard.Guard(run, checkpoints=checkpoints, every=2).steps(range(99), 9):
    if step == 3:
        checkpoints.settle(wait=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    done.append(step)
assert done == list(range(9)), done
print(checkpoints.steps())
"""


@pytest.mark.slow
def test_a_full_disk_is_reported_once_and_the_run_continues(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the same write fails, in the same place."""
    command = [sys.executable, "-c", FILLING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stdout) == (0, "[0, 2]\n"), done.stderr
    assert done.stderr == "a checkpoint could not be saved; the run continues without it: [Errno 27] File too large\n"
    assert not list(tmp_path.glob(".partial*"))


def test_a_folder_that_became_read_only_is_reported_and_the_earlier_checkpoints_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", box=Box())
    checkpoints.save(0, {})
    assert checkpoints.settle(wait=True)
    checkpoints._place.path = Path("/proc/self")  # refuses new folders, also to root
    checkpoints.save(1, {})
    with pytest.raises(OSError, match=r"/proc/self/\.partial-1"):
        checkpoints.settle(wait=True)
    checkpoints._place.path = tmp_path / "c"
    assert checkpoints.steps() == [0]


KILLED = """
import sys, torch
from lossguard.torch import Checkpoints
model = torch.nn.Linear(200, 200)
checkpoints = Checkpoints(sys.argv[1], keep=2, model=model)
for step in range(10**6):
    torch.nn.init.constant_(model.weight, step % 7)
    checkpoints.save(step % 7, {"step": step % 7})
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while one is written", "after one was printed"])
def test_a_kill_at_any_moment_leaves_good_checkpoints(
    tmp_path: Path, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also while one replaces another of the same step, and while old ones are deleted."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(12):
        process.stdout.readline()
    if moment == "while one is written":
        eventually(lambda: any(tmp_path.glob(".partial*")), interval=0.0)
    process.kill()
    process.wait()
    process.stdout.close()
    model = nn.Linear(200, 200)
    checkpoints = Checkpoints(tmp_path, model=model)
    assert len(checkpoints.steps()) >= 2
    for step in checkpoints.steps():
        assert checkpoints.load(step) == {"step": step}
        assert model.weight.eq(step).all()
    assert not caplog.text
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


def test_discarded_checkpoints_are_moved_and_thinned_and_can_be_loaded(tmp_path: Path) -> None:
    def aside() -> list[int]:
        return Checkpoints(tmp_path / "discarded", box=box).steps()

    box = Box()
    checkpoints = Checkpoints(tmp_path, blocking=True, box=box)
    for step in range(0, 100, 10):
        box.value = step
        checkpoints.save(step, {})
    checkpoints.discard_after(20)
    assert checkpoints.steps() == [0, 10, 20]
    assert aside() == [30, 50, 70, 80, 90]
    Checkpoints(tmp_path / "discarded", box=box).load(75)
    assert box.value == 70
    checkpoints.discard_after(20)
    assert aside() == [30, 50, 70, 80, 90]
    checkpoints.discard_after(0)
    assert (checkpoints.steps(), aside()) == ([0], [10, 20])


def stray_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes").write_text("")


def stray_checkpoint(path: Path) -> None:
    """A copy of a checkpoint, under the name that a person gave it."""
    shutil.copytree(path.parent / "step-000000020", path)


def stray_file(path: Path) -> None:
    path.write_text("")


def stray_link(path: Path) -> None:
    path.symlink_to(path.parent / "step-000000020")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


STRAYS = [stray_folder, stray_checkpoint, stray_file, stray_link, dangling_link]
NAMES = ["step-30", "step-30.tmp", "step-abc", "step-0000000030", "step-\u0663\u0660", "step-"]


@pytest.mark.parametrize("make", STRAYS)
def test_whatever_else_is_named_like_a_checkpoint_neither_counts_nor_changes(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    checkpoints = three(tmp_path, Box())
    for name in NAMES:
        make(tmp_path / name)
    assert checkpoints.steps() == [0, 10, 20]
    checkpoints.discard_after(10)
    assert checkpoints.steps() == [0, 10]
    checkpoints.save(30, {"step": 30})
    assert checkpoints.load(30) == {"step": 30}
    assert all(os.path.lexists(tmp_path / name) for name in NAMES)


@pytest.mark.parametrize("make", STRAYS)
def test_whatever_stands_in_the_place_of_a_checkpoint_is_replaced(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    for _ in range(2):
        make(tmp_path / "step-000000030")
        make(tmp_path / ".partial-30-1")
        assert checkpoints.load(30) == {"step": 20}
        checkpoints.save(30, {"step": 30})
        assert checkpoints.load(30) == {"step": 30}
        checkpoints.discard_after(20)
    assert checkpoints.load(20) == {"step": 20}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "discarded",
        "lock",
        "step-000000000",
        "step-000000010",
        "step-000000020",
    ]


@pytest.mark.parametrize("make", STRAYS)
def test_whatever_is_called_discarded_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    checkpoints = three(tmp_path, Box())
    make(tmp_path / "discarded")
    checkpoints.discard_after(10)
    assert checkpoints.steps() == [0, 10]
    assert [path.name for path in (tmp_path / "discarded").iterdir()] == ["step-000000020"]


def test_of_a_link_to_a_checkpoint_only_the_link_is_removed(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    three(archive, Box())
    checkpoints = Checkpoints(tmp_path / "run", keep=1, blocking=True, box=Box())
    checkpoints.save(0, {})
    (tmp_path / "run" / "step-000000010").symlink_to(archive / "step-000000010")
    assert checkpoints.load(10) == {"step": 10}
    checkpoints.discard_after(0)
    checkpoints.discard_after(0)
    assert checkpoints.steps() == [0]
    assert Checkpoints(archive, box=Box()).steps() == [0, 10, 20]


def test_a_full_disk_is_still_freed_of_leftover_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = three(tmp_path, Box())
    monkeypatch.setattr(Path, "mkdir", full)
    checkpoints.discard_after(0)
    assert checkpoints.steps() == [0]


@pytest.mark.parametrize("name", ["box.pt", "run.pt"])
@pytest.mark.parametrize("write", PAYLOADS)
def test_code_in_a_checkpoint_is_never_run_even_if_its_manifest_is_right(
    tmp_path: Path, write: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = three(tmp_path, Box())
    folder = tmp_path / "step-000000020"
    write(folder / name, tmp_path / "proof")
    assert runs_when_trusted(folder / name, tmp_path / "proof"), "the payload works"
    manifest = read_manifest(folder)
    manifest["files"][name] = fingerprint(folder / name)
    write_manifest(folder, manifest)
    assert checkpoints.load(20) == {"step": 10}
    assert not (tmp_path / "proof").exists()
    assert "skipping the checkpoint of step 20: UnpicklingError" in caplog.text


class Forgetful(torch.optim.AdamW):
    """What has happened to real runs: after a restore something is not what it was."""

    lost = ""

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        if self.lost == "moments":
            self.state.clear()
        elif self.lost == "one bit of a moment":
            next(iter(self.state.values()))["exp_avg_sq"].view(torch.int32)[1, 2] ^= 1
        elif self.lost == "steps":
            next(iter(self.state.values()))["step"].zero_()
        elif self.lost:
            self.param_groups[0][self.lost] = 0.5


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("lr", "param_groups.0.lr was 0.001 and is 0.5"),
        ("weight_decay", "param_groups.0.weight_decay was 0.01 and is 0.5"),
        ("moments", "state.0.step was float32"),
        ("one bit of a moment", "state.0.exp_avg_sq was float32"),
        ("steps", "state.0.step was float32"),
    ],
)
def test_an_incomplete_restore_is_detected_and_named(tmp_path: Path, lost: str, named: str) -> None:
    model = nn.Linear(3, 3)
    optimizer = Forgetful(model.parameters())
    checkpoints = Checkpoints(tmp_path, model=model, optimizer=optimizer)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    checkpoints.save(1, {})
    assert checkpoints.load(1) == {}
    optimizer.lost = lost
    with pytest.raises(CheckpointMismatch, match=f"optimizer differs from the checkpoint of step 1: {named}"):
        checkpoints.load(1)


def test_a_checkpoint_under_the_name_of_another_step_is_skipped(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    (tmp_path / "step-000000020").rename(tmp_path / "step-000000030")
    assert checkpoints.load(30) == {"step": 10}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"keep": 0}, "keep=0"),
        ({"run": Box()}, r"run\.pt"),
        ({"model": Box(), "uncompared": {"model": Box()}}, "model: give an object by its name or in uncompared"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Checkpoints(tmp_path, **options)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot hold checkpoints"):
        Checkpoints(tmp_path / "file")


def test_a_directory_that_another_process_writes_is_neither_written_nor_cleaned_up(tmp_path: Path) -> None:
    """An incomplete folder may be the checkpoint that the other process is about to finish."""
    three(tmp_path, Box())
    partial = tmp_path / ".partial-30-1"
    partial.mkdir()
    with (tmp_path / "lock").open("rb") as file:  # another open file is as another process
        fcntl.flock(file, fcntl.LOCK_EX)
        box = Box()
        other = Checkpoints(tmp_path, box=box)
        assert partial.is_dir()
        with pytest.raises(ConfigurationError, match="keep the checkpoints of this one in another folder"):
            other.lock(wait=0.0)
        assert (other.load(20), box.value) == ({"step": 20}, 20), "reading is harmless"
    other.lock(wait=0.0)
    assert not partial.exists()
    other.unlock()


def test_a_directory_stays_locked_until_the_background_save_has_ended(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, box=Box())
    checkpoints.lock()
    checkpoints.save(0, {})
    checkpoints.unlock()
    checkpoints.settle(wait=True)
    with (tmp_path / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert checkpoints.steps() == [0]


def test_locking_again_in_the_same_process_leaves_a_background_save_alone(tmp_path: Path) -> None:
    class Slow(Box):
        def state_dict(self) -> Any:
            return {"content": torch.zeros(4_000_000)}

        def load_state_dict(self, state: Any) -> None:
            self.content = state

    checkpoints = Checkpoints(tmp_path, box=Slow())
    checkpoints.lock()
    checkpoints.save(0, {"step": 0})
    checkpoints.lock()  # a loop that was left begins again
    other = Checkpoints(tmp_path, box=Slow())
    other.lock()
    assert checkpoints.settle(wait=True)
    assert checkpoints.steps() == [0]
    for each in (checkpoints, other):
        each.unlock()


class Rounding(Box):
    """Does not take all of its state back."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = round(state["value"])


def test_an_object_that_does_not_take_all_of_its_state_back_may_be_left_uncompared(tmp_path: Path) -> None:
    model, callbacks = Box(1), Rounding(2.5)
    strict = Checkpoints(tmp_path / "strict", blocking=True, model=model, callbacks=callbacks)
    strict.save(0, {})
    with pytest.raises(CheckpointMismatch, match="callbacks differs"):
        strict.load(0)
    checkpoints = Checkpoints(
        tmp_path / "uncompared", blocking=True, model=model, uncompared={"callbacks": Rounding(2.5)}
    )
    checkpoints.save(0, {})
    model.value, checkpoints.objects["callbacks"].value = 9, 9  # type: ignore[attr-defined]
    checkpoints.load(0)
    assert (model.value, checkpoints.objects["callbacks"].value) == (1, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "DeepSpeedEngine"])
def test_a_model_without_a_whole_state_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    model = type(kind, (torch.nn.Linear,), {})(2, 2)
    with pytest.raises(ValueError, match=f"^model is a {kind}, which is not supported: shard it with torch's"):
        Checkpoints(tmp_path, model=model)


def test_a_quick_look_finds_what_is_missing_and_what_was_cut_off(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    assert checkpoints.check(10) is None
    assert "no longer there" in str(checkpoints.check(15))
    (tmp_path / "step-000000010" / "box.pt").write_bytes(b"cut off")
    assert "box.pt is missing or has another size" in str(checkpoints.check(10))
    (tmp_path / "step-000000020" / "run.pt").unlink()
    assert "run.pt is missing" in str(checkpoints.check(20))
    (tmp_path / "step-000000000" / "manifest.json").write_text("{}")
    assert "cannot be read" in str(checkpoints.check(0))
