"""The arms of an order: tried, measured, reported, and without a trace in the run."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lossguard import Guard, Order
from lossguard.guard.arms import paired
from lossguard.torch import Checkpoints, Drawn
from lossguard.vocabulary.protocol import ARMS
from lossguard.vocabulary.states import Arm
from lossguard.vocabulary.wire import ArmsTried
from tests.lossguard.scripted import Indices, Memory, ScriptedRun, rollback

BAD = 11
"""The batch after which the weights are far off."""


class OrderedRun(ScriptedRun):
    """A run that gets one order after step 12, and keeps what is logged."""

    def __init__(self, **order: Any) -> None:
        super().__init__()
        self.waiting: Order | None = rollback(7, rewind_to=8, **order)
        self.logged: list[tuple[int, float]] = []

    def log(self, /, step: int, **metrics: Any) -> None:
        if not self.aside:
            self.logged.append((step, float(metrics["loss"])))

    def take_order(self) -> Order | None:
        order = self.waiting if self.logged and self.logged[-1][0] == 12 else None
        self.waiting = None if order is not None else self.waiting
        return order


class Loop:
    """A small training with dropout, Adam and a remedy that changes the learning rate."""

    def __init__(self, folder: Path, run: OrderedRun, **arms: Any) -> None:
        torch.manual_seed(1)
        self.first = torch.nn.Linear(4, 8)
        self.model = torch.nn.Sequential(self.first, torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.run, self.scale = run, 1.0
        checkpoints = Checkpoints(folder, model=self.model, optimizer=self.optimizer, memory=4, memory_every=4)
        self.guard = Guard(run, checkpoints=checkpoints, every=8)
        self.guard.remedy("slow", lambda: self.set_scale(0.1), lambda: self.set_scale(1.0), lasts=3)
        self.seen: list[tuple[Arm | None, int, int]] = []
        self.said: list[str] = []
        if arms:
            chosen: dict[str, Any] = {"evaluate": self.evaluate, "share": 100.0, "window": 6}
            self.guard.arms(**chosen | arms)
        self.guard.tell = self.said.append

    def set_scale(self, scale: float) -> None:
        self.scale = scale

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        torch.rand(3)  # an evaluation that draws random numbers leaves no trace either
        inputs = torch.linspace(-1, 1, 20).reshape(5, 4)
        return [float(loss) for loss in (self.model.eval()(inputs).squeeze() - inputs.sum(1)).square()]

    def train(self, batches: Any, until: int = 30) -> None:
        for step, batch in self.guard.steps(batches, until):
            inputs = batch[0] if isinstance(batch, list) else batch
            loss = (self.model.train()(inputs).squeeze() - inputs.sum(1)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = 1e-2 * self.scale
            self.optimizer.step()
            if step == BAD:
                with torch.no_grad():
                    self.first.weight += 50
            self.seen.append((self.guard.arm, step, int(self.guard.ledger.next_free(step))))
            self.run.log(step, loss=loss.item())

    def state(self) -> Any:
        return [self.model.state_dict(), self.optimizer.state_dict(), torch.get_rng_state(), self.scale]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def drawn() -> Any:
    return Drawn(lambda: torch.randn(6, 4), seed=3)


def loader() -> Any:
    return DataLoader(TensorDataset(torch.arange(160.0).reshape(40, 4) / 160), batch_size=4, shuffle=True)


def tried_in(run: OrderedRun) -> ArmsTried:
    (details,) = [details for kind, details in run.events if kind == ARMS]
    return ArmsTried.from_details(details)


@pytest.mark.slow
@pytest.mark.parametrize("data", [drawn, loader])
@pytest.mark.parametrize("order", [{}, {"skip_from": 10, "skip_to": 14}, {"remedies": ("slow",)}])
def test_a_run_goes_on_bit_for_bit_as_without_arms(tmp_path: Path, data: Any, order: dict[str, Any]) -> None:
    plain, forked = OrderedRun(**order), OrderedRun(**order)
    without = Loop(tmp_path / "a", plain)
    without.train(data())
    with_arms = Loop(tmp_path / "b", forked, window=6)
    with_arms.train(data())
    assert any(arm is not None for arm, _, _ in with_arms.seen)
    assert forked.logged == plain.logged
    assert same(with_arms.state(), without.state())
    assert [each[:2] for each in forked.recorded] == [each[:2] for each in plain.recorded]


def test_every_arm_trains_up_to_the_same_step_from_now_or_from_the_checkpoint(tmp_path: Path) -> None:
    run = OrderedRun(skip_from=10, skip_to=14)
    loop = Loop(tmp_path, run, window=6)
    loop.train(drawn())
    steps = {arm: [step for each, step, _ in loop.seen if each is arm] for arm in Arm}
    assert steps[Arm.WAIT] == [*range(13, 19)]
    assert steps[Arm.REWIND] == steps[Arm.REWIND_AND_SKIP] == steps[Arm.REWIND_WITH_REMEDY] == [*range(8, 19)]
    tried = tried_in(run)
    assert (tried.order, tried.rewind_to, tried.tier, tried.window) == (7, 8, "disk", 6)
    assert [(each.arm, each.steps, each.skipped, each.remedy) for each in tried.results] == [
        (Arm.WAIT, 6, 0, None),
        (Arm.REWIND, 11, 0, None),
        (Arm.REWIND_AND_SKIP, 11, 4, None),
        (Arm.REWIND_WITH_REMEDY, 11, 0, "slow"),
    ]
    assert "tried the arms of a rollback to step 8" in " ".join(loop.said)


def test_an_arm_that_stays_far_off_is_said_not_to_have_got_past(tmp_path: Path) -> None:
    """The step that throws the weights far off does it again after each rewind: none gets past, and none is near."""
    run = OrderedRun()
    Loop(tmp_path, run, window=6).train(drawn())
    waited, *others = tried_in(run).results
    assert waited.difference == 0.0
    assert not waited.got_past
    assert all(each.loss > 10 for each in others)


def test_a_loss_that_is_not_finite_is_reported_as_it_is(tmp_path: Path) -> None:
    run = OrderedRun()
    guards: list[Guard] = []
    loop = Loop(tmp_path, run, evaluate=lambda: [math.nan, math.inf] if guards[0].arm is Arm.WAIT else [1.0, 2.0])
    guards.append(loop.guard)
    loop.train(drawn())
    waited, rewound, *_ = tried_in(run).results
    assert math.isnan(waited.loss)
    assert not waited.got_past
    assert (rewound.loss, rewound.got_past) == (1.5, True)


def test_arms_that_cost_more_than_their_share_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = OrderedRun()
    loop = Loop(tmp_path, run, share=0.05)
    with caplog.at_level(logging.WARNING):
        loop.train(drawn())
    assert not run.events
    assert all(arm is None for arm, _, _ in loop.seen)
    assert "they cost 39 steps, and share=0.05 leaves 1 at step 13" in caplog.text


def test_an_iterator_cannot_go_back_so_no_arms_are_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(6, 4)

    loop = Loop(tmp_path, OrderedRun(), window=6)
    with caplog.at_level(logging.WARNING):
        loop.train(batches())
    assert all(arm is None for arm, _, _ in loop.seen)
    assert "no arms are tried: the training data is an iterator, which cannot go back" in caplog.text


def test_checkpoints_that_cannot_hold_the_present_state_allow_no_arms(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(OrderedRun(), checkpoints=Memory([]), every=4)
    with caplog.at_level(logging.WARNING):
        guard.arms(lambda: [1.0])
        assert [step for step, _ in guard.steps(Indices(), 10)] == [*range(10)]
    assert "these checkpoints cannot hold the state of now" in caplog.text


def test_an_evaluation_that_fails_ends_the_arms_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[float]:
        raise RuntimeError("no such file")

    plain, forked = OrderedRun(), OrderedRun()
    with caplog.at_level(logging.WARNING):
        without = Loop(tmp_path / "a", plain)
        without.train(drawn())
        with_arms = Loop(tmp_path / "b", forked, evaluate=fail)
        with_arms.train(drawn())
    assert "no arms are tried: RuntimeError: no such file" in caplog.text
    assert same(with_arms.state(), without.state())
    assert not forked.events


def test_a_loop_that_leaves_in_the_middle_of_an_arm_gets_the_state_of_before_back(tmp_path: Path) -> None:
    run = OrderedRun()
    loop = Loop(tmp_path, run, window=6)
    before: Any = None
    steps = loop.guard.steps(drawn(), 30)
    for step, batch in steps:
        if loop.guard.arm is Arm.REWIND:
            break
        before = before if loop.guard.arm is not None else None
        loss = (loop.model.train()(batch).squeeze() - batch.sum(1)).square().mean()
        loop.optimizer.zero_grad()
        loss.backward()
        loop.optimizer.step()
        run.log(step, loss=loss.item())
        if loop.guard.arm is None and step == 12:
            before = [{name: value.clone() for name, value in loop.model.state_dict().items()}, torch.get_rng_state()]
    steps.close()  # type: ignore[attr-defined]
    assert same(before, [loop.model.state_dict(), torch.get_rng_state()])
    assert not run.aside
    assert loop.guard.arm is None


def test_arms_need_a_function_a_share_and_a_window() -> None:
    guard = Guard(OrderedRun(), checkpoints=Memory([]))
    for wrong in ({"share": 0.0}, {"share": math.nan}, {"window": 0}, {"window": 2.5}):
        with pytest.raises(ValueError, match="needs a function, a share above 0"):
            guard.arms(lambda: [1.0], **wrong)


def test_differences_are_paired_over_documents() -> None:
    mean, error = paired([1.0, 2.0, 4.0], [0.5, 1.5, 3.0])
    assert mean == pytest.approx(2 / 3)
    assert error == pytest.approx(1 / 6)
    assert math.isnan(paired([1.0], [2.0])[1])
    assert paired([math.inf, -math.inf], [0.0, 0.0])[0] != 0
    with pytest.raises(ValueError, match="the same documents"):
        paired([1.0], [1.0, 2.0])
