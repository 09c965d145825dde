import math
import re
import time
from typing import Any

from lossguard import Client
from lossguard.vocabulary.states import Arm
from lossguard.vocabulary.wire import ArmResult, ArmsTried
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


def values(found: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {each["name"]: (each["value"], each["from"]) for each in found["values"]}


def test_the_policy_of_a_run_a_project_and_the_collector_is_set_and_unset(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "r")
    assert (
        cli("policy", "r", "set", "mode=approve", "false_alarms_per_10k=0.5", "--yes")
        == "run r: mode = approve\nrun r: false_alarms_per_10k = 0.5\n"
    )
    cli("policy", "--project", "gpt", "set", "patience=20", "--yes")
    cli("policy", "--collector", "set", "first_run_mode=observe", "allow_lr_scale=true", "--yes")
    found = cli.json("policy", "r")
    assert (found["of"], found["layer"]) == ("r", "run")
    expected = {
        "mode": ("approve", "run"),
        "false_alarms_per_10k": (0.5, "run"),
        "patience": (20, "project"),
        "allow_lr_scale": (True, "collector"),
    }
    assert {name: values(found)[name] for name in expected} == expected
    assert cli("policy", "r", "unset", "mode", "--yes") == "run r: mode is no longer set\n"
    assert values(cli.json("policy", "r", "show"))["mode"] == ("auto", "default")
    assert "first_run_mode        observe   collector" in cli("policy", "--collector")


def test_a_wrong_argument_of_policy_is_one_sentence(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "r", 2)
    wrong: tuple[tuple[list[str], str], ...] = (
        ([], "whose policy? Give a RUN, --project PROJECT or --collector"),
        (["set", "mode=auto"], "whose policy?"),
        (["r", "sett"], "'sett' is none of show, set, unset"),
        (["latest", "explain", "3"], "the RUN follows explain: lossguard policy explain latest 3"),
        (["r", "set"], "`policy set` needs values"),
        (["r", "show", "mode"], "`policy show` takes no values"),
        (["r", "set", "mode"], "'mode' must be NAME=VALUE"),
        (["r", "set", "depht=3"], "no policy has a value 'depht'; the values are: mode, name"),
        (["r", "set", "mode=always"], "nothing was changed"),
        (["r", "set", "patience=NaN"], "patience must be a whole number, not 'NaN'"),
        (["r", "set", "batch_cost=1e999"], "batch_cost must be"),
    )
    for arguments, sentence in wrong:
        assert sentence in cli.fails(2, "policy", *arguments, "--yes")


def explained(client: Client) -> None:
    """A run with a NaN, of whose rollback two arms were tried."""
    run = trained(client, "r", 100)
    (order,) = run.report(100, [float("nan")])["orders"]
    results = (
        ArmResult(arm=Arm.WAIT, steps=75, loss=math.nan, difference=math.nan, error=math.nan, got_past=False),
        ArmResult(arm=Arm.REWIND, steps=166, loss=2.0, difference=-0.5, error=0.01, got_past=True),
    )
    tried = ArmsTried(order=order["id"], rewind_to=10, tier=None, window=75, results=results)
    event = {"key": "e", "step": None, "time": time.time(), "kind": "arms", "details": tried.to_details()}
    run.report(101, [], events=[event])


def test_explain_shows_the_numbers_behind_a_decision_and_what_the_arms_came_to(
    collector_client: Client, cli: Cli
) -> None:
    explained(collector_client)
    out = cli("policy", "explain", "r", "1")
    assert "Incident 1: rollback to 10, ordered" in out
    assert re.search(r"rewind_and_skip +10 +99 to 124 +0\.\d+ +none +0\.\d+ +\d+", out)
    assert re.search(r"rewind +166 +2\.0000 +-0\.5000 \+- 0\.0100 +yes", out)
    assert re.search(r"wait +75 +nan +\+nan \+- nan +no", out)
    (found,) = cli.json("policy", "explain", "r")
    assert found.keys() == {"incident", "number", "attempt", "action", "reasons", "choices", "arms"}
    assert {each["arm"] for each in found["choices"]} == {"wait", "rewind_and_skip"}
    sentence = "no decision about incident 2 of r compared treatments"
    assert sentence in cli.fails(3, "policy", "explain", "r", "2")
    assert "`policy explain` needs a RUN" in cli.fails(2, "policy", "explain")
