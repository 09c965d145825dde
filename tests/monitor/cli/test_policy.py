"""The policy is shown and set on the command line."""

import json

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from db.store.engine import writing
from monitor.cli import policy
from tests.db.seed import add_run


@pytest.fixture(autouse=True)
def _project(store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session, "r1", project="gpt")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(policy.app, list(arguments))


def shown(*arguments: str) -> dict[str, tuple[object, str]]:
    """(value, where it is set) by name."""
    values = json.loads(run("show", *arguments, "--json").output)["values"]
    return {each["name"]: (each["value"], each["from"]) for each in values}


def test_values_are_set_shown_with_where_they_are_set_and_removed() -> None:
    assert run("set", "mode=approve", "first_run_mode=observe").exit_code == 0
    assert run("set", "--project", "gpt", "batch_cost=2", "false_alarms_per_10k=0.25").exit_code == 0
    assert run("set", "--run", "r1", "mode=observe").output == 'run r1: mode = "observe"\n'
    values = shown("--run", "r1")
    assert values["mode"] == ("observe", "run")
    assert values["batch_cost"] == (2, "project")
    assert values["false_alarms_per_10k"] == (0.25, "project")
    assert values["name"] == ("adaptive", "default")
    assert run("unset", "--run", "r1", "mode").output == "run r1: mode is no longer set\n"
    assert shown("--run", "r1")["mode"] == ("approve", "collector")
    assert shown("--project", "gpt")["batch_cost"] == (2, "project")
    assert run("unset", "--project", "gpt", "batch_cost", "false_alarms_per_10k").exit_code == 0
    assert shown("--run", "r1")["false_alarms_per_10k"][1] == "default"
    lines = run("show").output.splitlines()
    assert lines[0].split() == ["mode", '"approve"', "collector"]
    assert lines[-1].split() == ["first_run_mode", '"observe"', "collector"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set", "mood=auto"], "mood=auto: expected NAME=VALUE, with one of these names: "),
        (["set", "mode=brave"], "mode must be one of observe, approve, auto, not 'brave'"),
        (["set", "--run", "r2", "mode=auto"], "there is no run 'r2'"),
        (["show", "--run", "r2"], "there is no run 'r2'"),
        (["unset", "mood"], "there is no value 'mood'; the values are: "),
        (["show", "--run", "r1", "--project", "gpt"], "give --project or --run, not both"),
        (["set", "--project", "", "mode=auto"], "--project '' is no name"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, sentence in done.output, done.output.count("\n")) == (2, True, 1)
