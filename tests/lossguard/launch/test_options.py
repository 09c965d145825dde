import argparse
from pathlib import Path
from typing import Any

import pytest

from lossguard.__main__ import main
from lossguard.launch.launcher import ChildEnd
from lossguard.launch.options import ContractSupervisor, add_restart_options, limit_orders, supervisor_for
from lossguard.launch.restarting import RestartSupervisor
from lossguard.vocabulary.errors import ConfigurationError


def chosen(*arguments: str, tmp_path: Path) -> object:
    parser = argparse.ArgumentParser()
    add_restart_options(parser)
    options = parser.parse_args(arguments)
    return supervisor_for(options, ["train.py", "--output_dir", "out"], folder=tmp_path, run_folder=None)


def test_the_options_choose_who_supervises(tmp_path: Path) -> None:
    assert chosen(tmp_path=tmp_path) is None
    assert isinstance(chosen("--restart-with", "script", tmp_path=tmp_path), ContractSupervisor)
    found = chosen("--restart-with", "hf", "--grace", "3", "--max-restarts", "2", "--restart-hangs", tmp_path=tmp_path)
    assert isinstance(found, RestartSupervisor)
    assert (found.grace, found.budget.per_hour, found.restart_hangs) == (3.0, 2, True)
    assert found.adapter.folder == Path("out")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--restart-with", "nemo"], "--restart-with 'nemo' must be one of hf, megatron, torchtitan, nanochat, gen"),
        (["--restart-with", "generic"], "--checkpoints '' must have {step} once"),
        (["--restart-with", "megatron"], "the command has no --save"),
        (["--grace", "-1"], "--grace -1.0 must not be below 0"),
        (["--restart-hangs"], "--restart-hangs needs --restart-with and an adapter that sees steps"),
        (["--restart-hangs", "--restart-with", "script"], "--restart-hangs needs --restart-with and an adapter"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        chosen(*arguments, tmp_path=tmp_path)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "8"},
        {"RANK": "1", "WORLD_SIZE": "8"},
        {"RANK": "0", "WORLD_SIZE": "8", "PET_NNODES": "2"},  # a pod of several
        {"RANK": "0", "WORLD_SIZE": "8", "PET_NNODES": "1", "LOCAL_RANK": "0"},  # below the torchrun of a pod
    ],
)
def test_a_launcher_on_each_of_several_ranks_is_refused_because_it_would_restart_one_rank_alone(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**variables, "LOSSGUARD_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    arguments = ["--restart-with", "script", "--limits", "deep"]  # a mistake that is found later
    assert main(["launch", *arguments, "--", "/nonexistent/command"]) == 2
    said = capsys.readouterr().err
    assert "--restart-with would restart one of 8 ranks alone: put one launcher around the torchrun or srun" in said


def test_a_launcher_around_the_torchrun_of_the_only_pod_of_a_job_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow's operator sets the number of all ranks in the pod, before torchrun starts them."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "PET_NNODES": "1", "LOSSGUARD_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    assert main(["launch", "--restart-with", "script", "--limits", "deep", "--", "/nonexistent/command"]) == 2
    assert "--limits: 'deep' must be NAME=VALUE" in capsys.readouterr().err  # a mistake that is found later


def test_the_command_inherits_the_stricter_of_the_option_and_the_environment() -> None:
    environment = {"LOSSGUARD_LIMITS": "max_depth=5,max_skip=9"}
    limit_orders("max_depth=7,mode=approve", environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    limit_orders(None, environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    with pytest.raises(ConfigurationError, match="--limits: 'deep' must be NAME=VALUE"):
        limit_orders("deep", environment)


@pytest.mark.parametrize(
    ("end", "again"),
    [
        (ChildEnd(75), True),
        (ChildEnd(75, asked_to_stop=True), False),
        (ChildEnd(0), False),
        (ChildEnd(1), True),
        (ChildEnd(None, ended_cleanly=True), False),
    ],
)
def test_a_script_is_started_again_when_it_asks_for_it_or_has_crashed(end: ChildEnd, again: bool) -> None:
    supervisor = ContractSupervisor(["train"], max_restarts=1, backoff=0.0)
    following = supervisor.after(end, None)
    assert (following is not None) == again
    assert following is None or following.command == ["train"]


def test_crashes_in_a_row_end_it(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = ContractSupervisor(["train"], max_restarts=10, backoff=0.0)
    ends: list[Any] = [supervisor.after(ChildEnd(1), None) for _ in range(4)]
    assert [each is not None for each in ends] == [True, True, True, False]
    assert caplog.messages[-1] == "the command is not started again: it ended 4 times in a row without a new step"


def test_a_signal_in_the_pause_before_a_restart_interrupts_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.sigtimedwait", lambda signals, seconds: signals)
    supervisor = ContractSupervisor(["train"], max_restarts=10, backoff=9.0)
    assert supervisor.after(ChildEnd(1), None) is None
    assert supervisor.is_interrupted
