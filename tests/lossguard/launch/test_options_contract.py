from typing import Any

import pytest

from lossguard.launch.launcher import ChildEnd
from lossguard.launch.options import ContractSupervisor
from tests.lossguard.launch.launching import SECONDS, Launching

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
