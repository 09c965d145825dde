"""The hook on fakes that have the shape of wandb's versions; `test_hooks.py` has the real one."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lossguard.launch.hooks import wandb
from lossguard.launch.hooks.journal import Journal

Entries = Callable[[], list[dict[str, Any]]]


class FakeRun:
    def __init__(self, **facts: Any) -> None:
        self.project, self.name, self.config, self.tags = "gpt", "base", {"lr": 0.1}, ()
        self.starting_step = 0
        self.received: list[Any] = []
        vars(self).update(facts)

    def log(self, data: Any, step: Any = None, commit: bool | None = None, sync: bool | None = None) -> str:
        self.received.append((data, step, commit))
        return "logged"


@pytest.fixture
def run_class(journal: Journal) -> type[FakeRun]:
    module = ModuleType("wandb.sdk.wandb_run")
    module.Run = type("Run", (FakeRun,), {"log": FakeRun.log})  # type: ignore[attr-defined]
    wandb.hook(module, journal)
    run: type[FakeRun] = module.Run
    return run


def steps(entries: Entries) -> list[tuple[int, dict[str, float], bool]]:
    return [(each["step"], each["values"], "complete" in each) for each in entries() if "values" in each]


def test_without_a_step_the_calls_are_counted(run_class: type[FakeRun], entries: Entries) -> None:
    run = run_class()
    assert [run.log({"loss": 1.0}) for _ in range(3)] == ["logged"] * 3
    assert steps(entries) == [(step, {"loss": 1.0}, True) for step in range(3)]
    assert run.received == [({"loss": 1.0}, None, None)] * 3


def test_a_resumed_run_counts_on(run_class: type[FakeRun], entries: Entries) -> None:
    run_class(starting_step=40).log({"loss": 1.0})
    assert steps(entries) == [(40, {"loss": 1.0}, True)]


def test_calls_without_commit_belong_to_one_step(run_class: type[FakeRun], entries: Entries) -> None:
    run = run_class()
    run.log({"loss": 1.0}, commit=False)
    run.log({"lr": 0.5})
    run.log({"loss": 2.0}, step=5)
    run.log({"lr": 0.5}, 5, True)
    run.log({"loss": 3.0})
    assert [(step, complete) for step, _, complete in steps(entries)] == [
        (0, False),
        (0, True),
        (5, False),
        (5, True),
        (6, True),
    ]


@pytest.mark.parametrize("name", ["train/global_step", "trainer/global_step", "step", "iter", "Iteration"])
def test_a_step_among_the_values_counts(run_class: type[FakeRun], entries: Entries, name: str) -> None:
    run = run_class()
    for step in (10, 20):
        run.log({"loss": 1.0, name: step})
    assert steps(entries) == [(10, {"loss": 1.0}, True), (20, {"loss": 1.0}, True)]
    assert run.received[0] == ({"loss": 1.0, name: 10}, None, None)


def test_a_step_among_the_values_that_starts_again_in_each_epoch_is_none(
    run_class: type[FakeRun], entries: Entries
) -> None:
    run = run_class()
    for step in (0, 1, 2, 0, 1):
        run.log({"loss": 1.0, "step": step})
    assert [step for step, _, _ in steps(entries)] == [0, 1, 2, 3, 4]


def test_what_is_no_scalar_is_left_out(run_class: type[FakeRun], entries: Entries) -> None:
    run = run_class()
    run.log({"image": object(), "text": "x"})
    run.log({"loss": 1.0, "nested": {"a": 2.0}})
    assert steps(entries) == [(1, {"loss": 1.0, "nested.a": 2.0}, True)]


def test_names_and_configuration_come_first_and_their_changes_later(
    run_class: type[FakeRun], entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "DESCRIBE_SECONDS", 0.0)
    run = run_class(tags=("night",))
    run.log({"loss": 1.0})
    run.config["width"] = 64
    run.log({"loss": 1.0})
    described = [entry for entry in entries() if "config" in entry]
    first = {"tracker": "wandb", "project": "gpt", "name": "base", "config": {"lr": 0.1}, "tags": ["night"]}
    assert described == [first, {**first, "config": {"lr": 0.1, "width": 64}}]


def test_names_that_wandb_invents_are_none(run_class: type[FakeRun], entries: Entries) -> None:
    run_class(project="uncategorized", name="dummy-x1").log({"loss": 1.0})
    assert entries()[0] == {"tracker": "wandb", "config": {"lr": 0.1}}


def test_a_disabled_run_of_an_earlier_version_has_a_log_of_its_own(journal: Journal, entries: Entries) -> None:
    module = ModuleType("wandb.sdk.wandb_init")
    module.wandb = ModuleType("wandb")  # type: ignore[attr-defined]

    def init() -> FakeRun:
        run = FakeRun(log=lambda data, *_, **__: "its own")
        module.wandb.log = run.log
        return run

    module.init = init  # type: ignore[attr-defined]
    wandb.hook(module, journal)
    assert module.init().log({"loss": 1.0}) == "its own"
    assert module.wandb.log({"loss": 2.0}) == "its own"
    assert [values for _, values, _ in steps(entries)] == [{"loss": 1.0}, {"loss": 2.0}]
