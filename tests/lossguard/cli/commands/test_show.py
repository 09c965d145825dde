import json
import time
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from lossguard.cli.commands.show import story
from tests.lossguard.cli.small_runs import SmallRun, trained


def test_a_run_is_shown_with_its_story_and_what_it_waits_for(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(collector_client, "asking", 100, total_steps=400, policy={"mode": "approve"})
    run.report(100, [float("nan")])
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_URL", "https://lossguard.example/")
    assert main(["show", "asking"]) == 0
    out = capsys.readouterr().out
    assert "101 steps, 25.2%, 1 incident without a rollback, harm not measured" in out
    assert "step 100 of 400 (25.2%), loss NaN" in out
    assert "Waiting for you: intervention 1 (rollback to 10, proposed): lossguard approve asking" in out
    assert "nonfinite" in out
    assert "mode approve (set for the run)" in out
    assert "https://lossguard.example/run?run=asking" in out
    assert main(["show", "asking", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["step"], shown["metrics"]["loss"], shown["waiting"]) == (100, "NaN", [1])
    assert shown["policy"]["mode"] == {"value": "approve", "from": "run"}
    assert shown["incidents"][0]["interventions"][0]["number"] == 1


def test_a_run_that_lost_its_guard_says_why(collector_client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    SmallRun(collector_client, "lost", capabilities=["no-rollback:the guard has failed (KeyError: 'x')"])
    assert main(["show", "lost"]) == 0
    assert "Nothing is rolled back any more: the guard has failed (KeyError: 'x')." in capsys.readouterr().out


def test_a_state_that_is_never_restored_is_named_with_the_reason(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(collector_client, "damaged", 30)
    details = {"step": 20, "reason": "ranks 0, 1 differ in model.weight"}
    event = {"key": "e", "step": 20, "time": time.time(), "kind": "checkpoint_uncertified", "details": details}
    run.report(30, [2.7], events=[event])
    sentence = (
        "the state at step 20 is never restored: ranks 0, 1 differ in model.weight; the newest good one is step 10"
    )
    assert main(["show", "damaged"]) == 0
    assert f"Checkpoint without a certificate: {sentence}." in capsys.readouterr().out
    assert main(["show", "damaged", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["uncertified"] == details
    run.report(31, [2.7], restorable_steps=[0, 10, 30])
    assert main(["show", "damaged"]) == 0
    assert "never restored" not in capsys.readouterr().out


def test_a_run_without_a_step_is_shown(collector_client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    SmallRun(collector_client, "new", config={"tags": ["sweep"]})
    assert main(["show", "latest"]) == 0
    assert "No step has been reported yet." in capsys.readouterr().out
    assert main(["show", "latest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"] == ["sweep"]


def test_errors_of_a_command_have_their_exit_codes_and_are_json_where_that_is_asked(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["show", "nope", "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["exit_code"] == 3
    with pytest.raises(SystemExit) as caught:
        main(["show", "--json"])
    assert caught.value.code == 2
    assert json.loads(capsys.readouterr().err) == {
        "error": "the following arguments are required: RUN",
        "exit_code": 2,
    }
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:1")
    assert main(["show", "nope"]) == 4
    monkeypatch.delenv("LOSSGUARD_URL")
    assert main(["show", "nope"]) == 2
    assert "give its address with --url, or set LOSSGUARD_URL" in capsys.readouterr().err


RUN = {"newest_step": {"step": 860}, "total_steps": 3261}
SPIKE, STALL = {"kind": "loss_spike"}, {"kind": "stall"}


@pytest.mark.parametrize(
    ("run", "goodput", "incidents", "sentence"),
    [
        (RUN, 0.931, [SPIKE] * 6, "861 steps, 26.4%, 28 s lost to 6 incidents, goodput 93.1%."),
        (RUN | {"total_steps": None}, None, [STALL], "861 steps, no incident."),
        ({"newest_step": {"step": 0}, "total_steps": 4}, None, [SPIKE], "1 step, 25.0%, 28 s lost to 1 incident."),
        ({"newest_step": None, "total_steps": 5}, None, [], "No step has been reported yet."),
    ],
)
def test_a_sentence_says_what_became_of_a_run(
    run: dict[str, Any], goodput: float | None, incidents: list[dict[str, Any]], sentence: str
) -> None:
    assert story(run, {"goodput": goodput, "seconds": {"spike": 28.2}}, incidents) == sentence
