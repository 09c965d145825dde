import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.torch import Checkpoints
from lossguard.torch.checkpoints import fingerprint


class Box:
    """The smallest thing with a state."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def three(folder: Path, box: Box) -> Checkpoints:
    checkpoints = Checkpoints(folder, box=box)
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


def test_generators_of_python_numpy_and_torch_come_back(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]

    random.gauss(0, 1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {})
    first = draw()
    checkpoints.load(0)
    assert draw() == first


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
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["box.pt"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("harm", [damage_bytes, truncate, lose_a_file, garble_the_manifest, forget_a_file])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    harm(tmp_path / "step-000000020")
    assert checkpoints.load(20) == {"step": 10}
    assert "checkpoint of step 20 is passed over" in caplog.text
    assert box.value == 10


def test_when_none_is_intact_nothing_changes(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    for folder in tmp_path.glob("step-*"):
        damage_bytes(folder)
    with pytest.raises(CheckpointError, match="no intact checkpoint at or before step 20"):
        checkpoints.load(20)
    assert box.value == 20


def test_a_save_that_was_killed_leaves_no_checkpoint_and_the_next_sweeps_up(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    left = tmp_path / ".partial-30-1"
    left.mkdir()
    (left / "box.pt").write_bytes(b"half")
    assert checkpoints.steps() == [0, 10, 20]
    checkpoints.save(30, {"step": 30})
    assert not left.exists()


def test_a_save_that_fails_leaves_the_earlier_checkpoint_of_that_step(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    box.value = object()
    with pytest.raises(CheckpointError, match="'box' holds more than tensors and plain values"):
        checkpoints.save(20, {"step": 20})
    assert checkpoints.load(20) == {"step": 20}
    assert not list(tmp_path.glob(".partial*"))


def test_a_step_may_be_saved_again(tmp_path: Path) -> None:
    box = Box()
    checkpoints = three(tmp_path, box)
    box.value = 99
    checkpoints.save(20, {"step": 20})
    box.value = 0
    checkpoints.load(20)
    assert box.value == 99


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(5):
        checkpoints.save(step, {})
    assert checkpoints.steps() == [3, 4]


def test_later_checkpoints_can_be_discarded(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    checkpoints.discard_after(10)
    assert checkpoints.steps() == [0, 10]


def test_a_pickle_with_code_in_it_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "hacked").touch, ())

    checkpoints = three(tmp_path, Box())
    folder = tmp_path / "step-000000020"
    torch.save(Evil(), folder / "box.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["box.pt"] = fingerprint(folder / "box.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoints.load(20) == {"step": 10}
    assert not (tmp_path / "hacked").exists()


def test_model_and_optimizer_come_back_exactly(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(tmp_path, model=model, optimizer=optimizer)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        return model.weight.detach().clone()

    step()
    checkpoints.save(1, {})
    first = step()
    checkpoints.load(1)
    assert torch.equal(step(), first)


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
def test_a_restore_that_loses_something_is_found_out_and_named(tmp_path: Path, lost: str, named: str) -> None:
    model = nn.Linear(3, 3)
    optimizer = Forgetful(model.parameters())
    checkpoints = Checkpoints(tmp_path, model=model, optimizer=optimizer)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    checkpoints.save(1, {})
    assert checkpoints.load(1) == {}
    optimizer.lost = lost
    with pytest.raises(CheckpointMismatch, match=f"optimizer is not what the checkpoint of step 1 saved: {named}"):
        checkpoints.load(1)


def test_a_checkpoint_under_the_name_of_another_step_is_passed_over(tmp_path: Path) -> None:
    checkpoints = three(tmp_path, Box())
    (tmp_path / "step-000000020").rename(tmp_path / "step-000000030")
    assert checkpoints.load(30) == {"step": 10}


@pytest.mark.parametrize("options", [{"keep": 0}, {"run": Box()}])
def test_bad_arguments_are_refused(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ValueError, match=r"keep=0|run\.pt"):
        Checkpoints(tmp_path, **options)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot hold checkpoints"):
        Checkpoints(tmp_path / "file")
