import json
import re
import time
from typing import Any

import pytest
import sqlalchemy as sa

from db import commands
from db.store.engine import writing
from lossguard import Client
from lossguard.cli.commands.show import story
from lossguard.vocabulary.states import SegmentReason
from tests.db.seed import stored_run
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import SmallRun, trained
from tests.monitor.scenarios import quiet_since


def test_a_run_is_shown_with_its_story_and_what_it_waits_for(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(collector_client, "asking", 100, total_steps=400, policy={"mode": "approve"})
    run.report(100, [float("nan")])
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_URL", "https://lossguard.example/")
    out = cli("show", "asking")
    assert "DIVERGED: loss NaN, expected 2.1. Roll back to 10?" in out
    assert "Step 100, 25.2%, 1 incident without a rollback, harm not measured" in out
    assert "step 100 of 400 (25.2%), loss NaN" in out
    assert "Waiting for you: intervention 1 (rollback to 10, proposed): lossguard approve asking" in out
    assert "nonfinite" in out
    assert "mode approve (set for the run)" in out
    assert "https://lossguard.example/run?run=asking" in out
    shown = cli.json("show", "asking")
    assert shown["verdict"] == "diverged"
    assert (shown["step"], shown["metrics"]["loss"], shown["waiting"]) == (100, "NaN", [1])
    assert shown["policy"]["mode"] == {"value": "approve", "from": "run"}
    assert shown["incidents"][0]["interventions"][0]["number"] == 1


def test_a_held_run_offers_what_its_page_offers(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "held", 30)
    cli("hold", "held", "--yes")
    order = run.report(30, [2.7])["orders"][0]
    collector_client.request("PUT", f"/orders/{order['id']}", {"state": "applied", "key": order["key"]})
    out = cli("show", "held")
    assert re.search(r"HELD for \d+ s: waits for you", out)
    assert "lossguard release held: training continues from the current step, as it is" in out
    assert "lossguard rollback held --to STEP: the newest are 0, 10" in out
    assert "lower the learning rate" in out
    assert "stop the run" in out
    assert cli.json("show", "held")["verdict"] == "held"
    assert re.match(r"HELD for \d+ s", cli("runs").splitlines()[1])


def test_the_newest_loss_is_shown_where_the_newest_step_is_of_an_evaluation(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "evaluated", 20)
    body = {"segment": 0, "steps": [20], "times": [time.time()], "metrics": {"eval_loss": [2.9]}}
    collector_client.request("POST", f"/runs/{run.id}/reports", body)
    assert "step 20, loss 2.81" in cli("show", "evaluated")


def test_a_killed_run_is_not_running(collector_client: Client, cli: Cli, sqlite_engine: sa.Engine) -> None:
    trained(collector_client, "killed", 20)
    quiet_since(sqlite_engine, step=420.0)
    sentence = r"Not watched: no report for 7\.\d min; the process was killed, or cannot reach the collector"
    assert re.search(sentence, cli("show", "killed"))
    assert cli("runs").splitlines()[1].startswith("Not watched ")


def test_a_run_that_lost_its_guard_or_cannot_save_says_why(collector_client: Client, cli: Cli) -> None:
    why = ["no-rollback:the guard has failed (KeyError: 'x')", "no-checkpoint:[Errno 28] No space left on device"]
    SmallRun(collector_client, "lost", capabilities=why)
    shown = cli("show", "lost")
    assert "Nothing is rolled back any more: the guard has failed (KeyError: 'x')." in shown
    assert "Checkpoints cannot be saved: [Errno 28] No space left on device." in shown


def test_a_state_that_is_never_restored_is_named_with_the_reason(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "damaged", 30)
    details = {"step": 20, "reason": "ranks 0, 1 differ in model.weight"}
    event = {"key": "e", "step": 20, "time": time.time(), "kind": "checkpoint_uncertified", "details": details}
    run.report(30, [2.7], events=[event])
    sentence = (
        "the state at step 20 is never restored: ranks 0, 1 differ in model.weight; the newest good one is step 10"
    )
    assert f"Checkpoint without a certificate: {sentence}." in cli("show", "damaged")
    assert cli.json("show", "damaged")["uncertified"] == details
    run.report(31, [2.7], restorable_steps=[0, 10, 30])
    assert "never restored" not in cli("show", "damaged")


def test_a_state_that_is_never_restored_is_named_while_another_process_reports_beside_the_live_line(
    collector_client: Client, cli: Cli, sqlite_engine: sa.Engine
) -> None:
    run, details = trained(collector_client, "two", 30), {"step": 20, "reason": "model.weight holds NaN"}
    event = {"key": "e", "step": 20, "time": time.time(), "kind": "checkpoint_uncertified", "details": details}
    run.report(30, [2.7], events=[event])
    with writing(sqlite_engine) as session:
        commands.open_segment(
            session,
            run=stored_run(session, "two"),
            key="b",
            fork_step=10,
            reason=SegmentReason.RESUME,
            order_id=None,
            opened_at=time.time(),
            is_beside=True,
        )
    assert cli.json("show", "two")["uncertified"] == details


def test_a_run_without_a_step_is_shown(collector_client: Client, cli: Cli) -> None:
    SmallRun(collector_client, "new", config={"tags": ["sweep"]})
    assert "No step has been reported yet." in cli("show", "latest")
    assert cli.json("show", "latest")["tags"] == ["sweep"]


def test_errors_of_a_command_have_their_exit_codes_and_are_json_where_that_is_asked(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(cli.fails(3, "show", "nope", "--json"))["exit_code"] == 3
    missing = {"error": "the following arguments are required: RUN", "exit_code": 2}
    assert json.loads(cli.fails(2, "show", "--json")) == missing
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:1")
    cli.fails(4, "show", "nope")
    monkeypatch.delenv("LOSSGUARD_URL")
    assert "give its address with --url, or set LOSSGUARD_URL" in cli.fails(2, "show", "nope")


RUN = {"newest_step": {"step": 860}, "total_steps": 3261}
UNMEASURED = "Step 0, 25.0%, 1 incident without a rollback, harm not measured."
NO_COSTS: dict[str, Any] = {"steps": 0, "seconds": None, "rewinds": []}
SPIKE, STALL = {"kind": "loss_spike"}, {"kind": "stall"}


@pytest.mark.parametrize(
    ("run", "goodput", "incidents", "sentence"),
    [
        (RUN, 0.931, [SPIKE] * 6, "Step 860, 26.4%, 6 incidents, 1 rewind cost 119 steps and 12 min, goodput 93.1%."),
        (RUN | {"total_steps": None}, None, [STALL] * 2, "Step 860, 2 incidents."),
        (RUN | {"total_steps": None}, None, [], "Step 860, no incident."),
        ({"newest_step": {"step": 0}, "total_steps": 4}, None, [SPIKE], UNMEASURED),
        ({"newest_step": {"step": 4}, "total_steps": 4}, None, [], "Step 4, 100.0%, no incident."),  # it counts from 1
        ({"newest_step": None, "total_steps": 5}, None, [], "No step has been reported yet."),
    ],
)
def test_a_sentence_says_what_became_of_a_run(
    run: dict[str, Any], goodput: float | None, incidents: list[dict[str, Any]], sentence: str
) -> None:
    """The loss of time is that of the page: from the first time a restored step was done until it is done again."""
    costs = {"steps": 119, "seconds": 723.0, "rewinds": [{}]} if goodput else NO_COSTS
    assert story(run, {"goodput": goodput, "seconds": {"spike": 5.2}}, incidents, costs) == sentence


def test_the_story_says_the_harm_of_waiting_where_arms_have_measured_it() -> None:
    run = {"newest_step": {"step": 99, "metrics": {}}, "total_steps": None}
    arms = [
        {"intervention": number, "arm": arm, "details": {"difference": difference, "got_past": difference == 0}}
        for number, arm, difference in ((1, "wait", 0.0), (1, "rewind", -0.2), (2, "wait", "NaN"), (2, "rewind", "NaN"))
    ]
    goodput: dict[str, Any] = {"seconds": {}, "goodput": None}
    shown = story(run | {"arms": arms}, goodput, [{"kind": "loss_spike"}], NO_COSTS)
    assert "waiting got past in 1 of 2 that were tried, 0.2 nats above the best arm" in shown
    assert "that were tried" not in story(run, goodput, [{"kind": "loss_spike"}], NO_COSTS)
