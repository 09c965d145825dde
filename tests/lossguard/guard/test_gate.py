import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lossguard
from lossguard.guard.gate import BLOCK
from lossguard.guard.gate_bounds import MIN_VALUES
from lossguard.torch import Checkpoints, Gate
from lossguard.vocabulary.metrics import MAX_SKIPPED
from tests.lossguard.scripted import ScriptedRun, rollback

KNOWN = MIN_VALUES + 3 * BLOCK
"""Steps after which there are bounds: they are learnt a block or two late."""


class Trained:
    """One weight that rises by 1 with each update."""

    def __init__(self, deviations: float = 12.0) -> None:
        self.weight = nn.Parameter(torch.zeros(()))
        self.weight.grad = torch.tensor(-1.0)
        self.optimizer = torch.optim.SGD([self.weight], lr=1.0)
        self.run = lossguard.Run(id="r")
        self.sentences: list[str] = []
        self.gate = Gate([self.optimizer], run=self.run, deviations=deviations, tell=self.sentences.append)

    def steps(self, number: int, loss: Any = 2.0, grad_norm: Any = 1.0) -> "Trained":
        for _ in range(number):
            self.gate.step(loss, grad_norm)
        return self

    @property
    def updates(self) -> float:
        return self.weight.item()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_from_the_first_step_on(bad: float) -> None:
    assert Trained().steps(1, bad).steps(1, 2.0, bad).steps(1, torch.tensor(bad)).updates == 0
    assert Trained().steps(1, 1e30, 1e30).updates == 1


def test_a_value_beyond_the_bound_is_refused_once_the_level_is_known() -> None:
    assert Trained().steps(3).steps(1, 9.0).updates == 4
    known = Trained().steps(KNOWN)
    assert known.steps(1, 9.0).updates == KNOWN
    assert known.steps(1, 2.0, 100.0).updates == KNOWN
    assert known.steps(1, 2.1, 1.5).updates == KNOWN + 1
    assert Trained(deviations=1000.0).steps(KNOWN).steps(1, 9.0).updates == KNOWN + 1


def test_the_verdict_is_a_tensor_and_the_next_row_reports_it() -> None:
    trained = Trained()
    verdict = trained.gate.step(torch.tensor(math.nan, dtype=torch.bfloat16), 1.0)
    assert (verdict.shape, verdict.item()) == ((), 1.0)
    trained.steps(1, math.inf).steps(1)
    assert trained.run.skipped == 2.0


def test_the_cap_lets_finite_values_pass_and_refuses_the_others_still() -> None:
    trained = Trained().steps(KNOWN)
    trained.steps(MAX_SKIPPED + 3 * BLOCK, 9.0)
    assert trained.updates > KNOWN
    assert len(trained.sentences) == 1
    assert "skipped 5 of the last 50 updates" in trained.sentences[0]
    before = trained.updates
    assert trained.steps(1, 9.0).steps(1, math.nan).updates == before + 1
    trained.steps(KNOWN, 9.0)  # the new level is known
    before = trained.updates
    assert trained.steps(1, 90.0).updates == before


def test_reset_forgets_the_bounds() -> None:
    trained = Trained().steps(KNOWN)
    trained.gate.reset()
    assert trained.steps(1, 9.0).updates == KNOWN + 1


def test_a_restored_gate_decides_as_the_one_that_was_saved() -> None:
    one, other = Trained().steps(KNOWN + 3), Trained()
    other.gate.load_state_dict(one.gate.state_dict())
    for trained in (one, other):
        trained.steps(1, 9.0).steps(3 * BLOCK, 2.1)
    assert one.gate.state_dict() == other.gate.state_dict()
    assert one.gate.num_skipped == other.gate.num_skipped == 1
    other.gate.load_state_dict({})  # a checkpoint that was saved without a gate
    assert other.steps(1, 9.0).updates == 3 * BLOCK + 1


def test_several_optimizers_skip_together() -> None:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizers = [torch.optim.AdamW([weights[0]], fused=True), torch.optim.SGD([weights[1]], lr=1.0)]
    gate = Gate(optimizers, run=lossguard.Run(id="r"), tell=print)
    for each in weights:
        each.grad = torch.full((2,), math.nan)
    gate.step(2.0, math.nan)
    assert all(torch.equal(each, torch.zeros(2)) for each in weights)


def test_the_learning_rate_follows_the_step() -> None:
    trained = Trained()
    schedule = torch.optim.lr_scheduler.StepLR(trained.optimizer, 1, 0.5)
    trained.steps(1)
    schedule.step()
    trained.steps(1, math.nan)
    schedule.step()
    assert schedule.get_last_lr() == [0.25]


def test_a_rollback_restores_the_bounds_of_the_checkpoint(tmp_path: Path) -> None:
    weight = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.0)
    order = rollback(rewind_to=20)
    run = ScriptedRun({60: order})
    guard = lossguard.Guard(run, checkpoints=Checkpoints(tmp_path, model=weight, optimizer=optimizer), every=10)
    gate = guard.gate(optimizer)
    losses, states = [2.0] * 60 + [9.0] * 20, list[Any]()
    for step, _ in guard.steps(range(1000), until=62):
        if step == 20:
            states.append(gate.state_dict())
        gate.step(losses[step], 1.0)
        run.log(step, loss=losses[step])
    assert len(states) == 2
    assert states[0] == states[1]
    assert len(states[0]["loss"]) == 20


def test_a_second_gate_and_no_optimizer_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    guard = lossguard.Guard(lossguard.Run(id="r"), checkpoints=Checkpoints(tmp_path, model=model))
    with pytest.raises(ValueError, match="needs the optimizers"):
        guard.gate()
    with pytest.raises(ValueError, match="deviations=-1"):
        guard.gate(torch.optim.SGD(model.parameters()), deviations=-1)
    guard.gate(torch.optim.SGD(model.parameters()))
    with pytest.raises(ValueError, match="give it all optimizers in one call"):
        guard.gate(torch.optim.SGD(model.parameters()))


def test_the_spool_has_a_row_for_each_skip_and_nothing_for_the_others(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.zeros(2))
    with lossguard.init("p", directory=tmp_path, mode="offline", run_id="r") as run:
        gate = Gate([torch.optim.SGD([weight], lr=1.0)], run=run, tell=print)
        for step, loss in enumerate([2.0, math.nan, 2.0]):
            gate.step(loss, 1.0)
            run.log(step, loss=loss)
    lines = "".join(path.read_text() for path in (tmp_path / "p" / "r").glob("*.spool")).splitlines()
    assert ["skipped" in line for line in lines if '"metrics"' in line] == [False, True, False]
