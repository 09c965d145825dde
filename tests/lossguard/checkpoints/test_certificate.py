import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lossguard.checkpoints.certificate import OptimizerStepCounts, copies_in, damage_in, differing_copies
from lossguard.checkpoints.files import read_manifest
from lossguard.run.ranks import Ranks
from lossguard.torch import Checkpoints


class Masked(nn.Module):
    """A module with a mask of infinities among its buffers, as attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2, dtype=torch.bfloat16)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))


def stepped() -> tuple[Masked, torch.optim.Optimizer]:
    model = Masked()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model.inner(torch.ones(3, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    return model, optimizer


FAULTS = [
    ("inner.weight", torch.nan, "model.inner.weight holds NaN"),
    ("inner.bias", torch.inf, "model.inner.bias holds an infinity"),
    ("mask", torch.nan, "model.mask holds NaN"),
    ("exp_avg", torch.nan, "optimizer.state.0.exp_avg holds NaN"),
    ("exp_avg", -torch.inf, "optimizer.state.0.exp_avg holds an infinity"),
    ("exp_avg_sq", -0.5, "optimizer.state.0.exp_avg_sq is a second moment and holds -0.5"),
    ("max_exp_avg_sq", -0.5, "optimizer.state.0.max_exp_avg_sq is a second moment and holds -0.5"),
    ("step", -1.0, "optimizer.state.0.step counts -1 steps"),
    ("step", 0.5, "optimizer.state.0.step counts 0.5 steps"),
]


@pytest.mark.parametrize(("name", "value", "reason"), FAULTS)
def test_a_damaged_state_gets_no_certificate_and_a_sound_one_with_a_mask_does(
    name: str, value: float, reason: str
) -> None:
    model, optimizer = stepped()
    tensors = model.state_dict() | optimizer.state_dict()["state"][0]

    def damage() -> str | None:
        return damage_in({"model": (model, model.state_dict()), "optimizer": (optimizer, optimizer.state_dict())})

    assert damage() is None
    tensors[name].view(-1)[-1] = value
    assert damage() == reason


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.complex64, torch.float8_e4m3fn])
def test_a_nan_is_found_in_tensors_of_every_kind(kind: torch.dtype) -> None:
    sound = torch.zeros(3, dtype=torch.float32).to(kind)
    damaged = torch.tensor([1.0, torch.nan]).to(kind)
    assert damage_in({"own": (object(), {"a": [sound, torch.ones(2, dtype=torch.int8), torch.empty(0)]})}) is None
    assert damage_in({"own": (object(), {"a": [sound, damaged]})}) == "own.a.1 holds NaN"
    assert damage_in({"own": (object(), {"a": torch.eye(2).to_sparse()})}) is None


def test_a_damaged_checkpoint_with_a_certificate_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(1, 1)
    checkpoints = Checkpoints(tmp_path, blocking=True, model=model)
    checkpoints.save(0, {"step": 0})
    with torch.no_grad():
        model.weight.fill_(torch.nan)
    with monkeypatch.context() as earlier:
        earlier.setattr("lossguard.checkpoints.checkpoints.damage_in", lambda *_: None)
        checkpoints.save(1, {"step": 1})
    assert checkpoints.steps() == [0, 1]
    assert checkpoints.load(1) == {"step": 0}
    assert model.weight.isfinite().all()


def test_checkpoints_without_a_certificate_are_few_and_lie_apart(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    checkpoints = Checkpoints(tmp_path, keep=1, blocking=True, model=model)
    checkpoints.save(0, {"step": 0})
    with torch.no_grad():
        model.weight.fill_(torch.nan)
    for step in (1, 2, 3, 4, 9, 5):  # the last one after a rollback
        checkpoints.save(step, {"step": step})
    assert checkpoints.steps() == [0]
    apart = sorted((tmp_path / "uncertified").iterdir())
    assert [folder.name[-2:] for folder in apart] == ["03", "04", "05"]
    assert read_manifest(apart[0])["uncertified"] == "model.weight holds NaN"
    assert read_manifest(tmp_path / "step-000000000")["certificate"]["finite"] is True
    assert [step for step, _ in checkpoints.take_uncertified()] == [1, 2, 3, 4, 9, 5]


def counted(*counts: tuple[int, dict[int, float]]) -> list[str | None]:
    """What is said of the step counts of an optimizer's parameters at each of these steps."""
    known, found = OptimizerStepCounts(), []
    for step, steps_of in counts:
        state = {number: {"step": torch.tensor(float(num))} for number, num in steps_of.items()}
        found.append(damage_in({"optimizer": (object(), {"state": state, "param_groups": []})}, known, step))
    return found


@pytest.mark.parametrize("damaged", [10.0 + 1024, 20.0 + 8, 40.0, 8192.0])
def test_a_step_count_that_has_grown_more_than_the_run_is_refused_as_long_as_it_stands(damaged: float) -> None:
    found = counted((10, {0: 10, 1: 10}), (20, {0: 20, 1: damaged}), (30, {0: 30, 1: damaged + 10}))
    reasons = [f"optimizer.state.1.step counts {damaged + more:.0f} steps at step {20 + more}" for more in (0, 10)]
    assert found == [None, *(f"{reason}, and 10 at step 10" for reason in reasons)]


def test_a_step_count_that_falls_is_refused_unless_it_began_anew() -> None:
    assert counted((100, {0: 100, 1: 100}), (110, {0: 110, 1: 46}))[1] is not None
    assert counted((100, {0: 100, 1: 100}), (110, {0: 110, 1: 4})) == [None, None]


CLEAN_COUNTS = {
    "unused at times, frozen, and added later": [(5, {0: 5, 1: 2, 2: 5}), (10, {0: 10, 1: 3, 2: 5, 3: 4})],
    "several updates a step": [(5, {0: 15, 1: 15}), (10, {0: 30, 1: 30, 2: 7})],
    "several updates a step of one tensor": [(5, {0: 10}), (10, {0: 20}), (15, {0: 30}), (20, {0: 40})],
    "several updates a step beside a frozen tensor": [(5, {0: 10, 1: 3}), (10, {0: 20, 1: 3}), (15, {0: 30, 1: 3})],
    "an optimizer of an earlier run": [(0, {0: 900, 1: 900}), (5, {0: 905, 1: 905})],
    "steps that count something else": [(1, {0: 500, 1: 500}), (2, {0: 1000, 1: 1000})],
    "one update for several steps": [(8, {0: 2}), (16, {0: 4})],
}


@pytest.mark.parametrize("counts", CLEAN_COUNTS.values(), ids=CLEAN_COUNTS)
def test_step_counts_need_not_be_equal(counts: list[tuple[int, dict[int, float]]]) -> None:
    assert counted(*counts) == [None] * len(counts)


def test_after_a_restore_step_counts_begin_anew(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(tmp_path, blocking=True, model=model, optimizer=optimizer)
    for step in range(1, 41):
        model(torch.ones(1)).sum().backward()
        optimizer.step()
        if step in (20, 40):
            checkpoints.save(step, {"step": step})
    checkpoints.load(20)
    checkpoints.discard_after(20)
    checkpoints.save(21, {"step": 21})
    assert checkpoints.steps() == [20, 21]
    assert checkpoints.take_uncertified() == []


class Copied(Ranks):
    """One of the ranks that hold the same states."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class Normed(nn.Module):
    """A module with statistics that each rank has of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(700)


def copies(*states: dict[str, Any]) -> list[tuple[dict[str, int], int]]:
    """What each rank finds of its state of `Normed`."""
    each = Normed()
    return [copies_in({"m": (each, state)}, Copied(rank, len(states))) for rank, state in enumerate(states)]


def state_of(seed: int, weight: Tensor) -> dict[str, Any]:
    return {"norm.weight": weight, "norm.running_mean": torch.full((700,), seed)}


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_copies_are_equal_where_only_the_statistics_of_each_rank_differ(num_ranks: int) -> None:
    weight = torch.randn(700, 3)
    found = copies(*(state_of(rank, weight.clone()) for rank in range(num_ranks)))
    assert sum(balance for _, balance in found) == 0
    assert differing_copies([digests for digests, _ in found]) is None


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_copy_with_one_other_bit_is_found(kind: torch.dtype) -> None:
    weight = torch.randn(701, 3).to(kind)
    for place in random.Random(0).sample(range(8 * weight.nbytes), 40):
        other = weight.clone()
        other.view(-1).view(torch.uint8)[place // 8] ^= 1 << place % 8
        found = copies(state_of(0, weight), state_of(0, other), state_of(0, weight))
        assert sum(balance for _, balance in found) != 0
        assert differing_copies([digests for digests, _ in found]) == "rank 1 and the others differ in m.norm.weight"


def test_blocks_of_a_tensor_that_have_changed_places_are_found() -> None:
    weight = torch.randn(4, 1024)
    for other in (weight.flip(0), weight[[0, 2, 1, 3]], weight.view(2, 2, 1024).transpose(0, 1).reshape(4, 1024)):
        found = copies(state_of(0, weight), state_of(0, other))
        assert sum(balance for _, balance in found) != 0


def test_a_copy_at_an_odd_place_in_memory_is_like_any_other() -> None:
    memory = torch.randn(3001)
    found = copies(state_of(0, memory[1:]), state_of(0, memory[1:].clone()))
    assert sum(balance for _, balance in found) == 0
