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


LOSS = {"loss": 1.0}
STEP_NAMES = ("train/global_step", "trainer/global_step", "step", "iter", "Iteration")


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(LOSS,)] * 3, [(0, True), (1, True), (2, True)]),  # without a step they are counted
        ([(LOSS, None, False), (LOSS,), (LOSS, 5), (LOSS, 5, True), (LOSS,)], [(0, 0), (0, 1), (5, 0), (5, 1), (6, 1)]),
        *(([(LOSS | {name: 10},), (LOSS | {name: 20},)], [(10, True), (20, True)]) for name in STEP_NAMES),
        ([(LOSS | {"step": step},) for step in (0, 1, 2, 0, 1)], [(n, True) for n in range(5)]),  # it begins again
    ],
)
def test_the_step_of_a_call_is_the_one_that_it_names_or_counts(
    run_class: type[FakeRun], entries: Entries, calls: list[Any], expected: list[tuple[int, bool]]
) -> None:
    run = run_class()
    assert [run.log(*each) for each in calls] == ["logged"] * len(calls)
    assert [(step, complete) for step, _, complete in steps(entries)] == expected
    assert [values["loss"] for _, values, _ in steps(entries)] == [1.0] * len(calls)
    assert [received[0] for received in run.received] == [each[0] for each in calls]


def test_names_and_configuration_come_first_and_their_changes_later(
    run_class: type[FakeRun], entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "DESCRIBE_SECONDS", 0.0)
    run = run_class(tags=("night",))
    run.log({"loss": 1.0})
    run.config["width"] = 64
    run.log({"loss": 1.0})
    described = [entry for entry in entries() if "config" in entry]
    run_class(project="uncategorized", name="dummy-x1").log({"loss": 1.0})  # names that wandb invents
    assert entries()[-2] == {"tracker": "wandb", "config": {"lr": 0.1}}
    first = {"tracker": "wandb", "project": "gpt", "name": "base", "config": {"lr": 0.1}, "tags": ["night"]}
    assert described == [first, {**first, "config": {"lr": 0.1, "width": 64}}]


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


def test_a_run_that_cannot_be_hooked_is_said_not_to_be_recorded(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("wandb.sdk.wandb_init")
    module.init = lambda: 7  # type: ignore[attr-defined]
    wandb.hook(module, journal)
    assert module.init() == 7
    said = capsys.readouterr().err
    assert said.startswith("lossguard: a run of wandb cannot be hooked (TypeError: ")
    assert said.endswith("): it is not recorded\n")
