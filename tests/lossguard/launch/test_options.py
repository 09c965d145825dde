import argparse
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.launcher import ChildEnd
from lossguard.launch.options import ContractSupervisor, add_restart_options, limit_orders, supervisor_for
from lossguard.launch.restarting import RestartSupervisor
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.launch.launching import SECONDS, Launching


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
    assert (found.limits.grace, found.limits.max_restarts, found.limits.restart_hangs) == (3.0, 2, True)
    assert found.adapter.folder == Path("out")


def test_the_command_inherits_the_stricter_of_the_option_and_the_environment() -> None:
    environment = {"LOSSGUARD_LIMITS": "max_depth=5,max_skip=9"}
    limit_orders("max_depth=7,mode=approve", environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    limit_orders(None, environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    with pytest.raises(ConfigurationError, match="--limits: 'deep' must be NAME=VALUE"):
        limit_orders("deep", environment)


SCRIPT = """
import json, os, pathlib, sys, time
import lossguard
run = lossguard.init("p")
plan = lossguard.restart(run)
files = {int(path.stem): path for path in pathlib.Path(".").glob("[0-9]*.json")}
for late in plan.discarded(files):
    files.pop(late).unlink()
step = plan.newest(files)
state = {"step": 0, "batch": 0, "model": []} if step is None else json.loads(files[step].read_text())
plan.resumed(state["step"])
plan.saved(files)
while state["step"] < 60:
    batch = plan.next_free(state["batch"])
    state["model"].append(batch)
    run.log(state["step"], loss=2.0, batch_index=batch)
    state["step"], state["batch"] = state["step"] + 1, batch + 1
    if state["step"] % 5 == 0:
        path = files[state["step"]] = pathlib.Path(f"{state['step']}.json")
        path.write_text(json.dumps(state))
        plan.saved(files)
    plan.check()
    time.sleep(0.02)
    while state["step"] == 14 and step is None:  # until it is stopped
        plan.check()
        time.sleep(0.02)
print(json.dumps(state["model"]))
run.finish()
"""


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


@pytest.mark.slow
def test_a_launched_script_that_keeps_the_contract_is_rolled_back(launching: Launching) -> None:
    import json

    process = launching.script(SCRIPT, options=("--restart-with", "script", "--run-id", "r", "--project", "p"))
    launching.wait_for_step(12)
    launching.collector.order(id=1, key="k1", kind="rollback", rewind_to=7, skip_from=5, skip_to=9)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out) == [*range(5), *range(9, 64)]
    assert [each["reason"] for each in launching.collector.segments] == ["start", "rollback"]
