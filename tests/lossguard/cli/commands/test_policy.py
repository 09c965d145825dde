import json
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["policy", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def values(found: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {each["name"]: (each["value"], each["from"]) for each in found["values"]}


def test_the_policy_of_a_run_a_project_and_the_collector_is_set_and_unset(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "r")
    assert main(["policy", "r", "set", "mode=approve", "false_alarms_per_10k=0.5"]) == 0
    assert capsys.readouterr().out == "run r: mode = approve\nrun r: false_alarms_per_10k = 0.5\n"
    assert main(["policy", "--project", "gpt", "set", "patience=20"]) == 0
    assert main(["policy", "--collector", "set", "first_run_mode=observe", "allow_lr_scale=true"]) == 0
    capsys.readouterr()
    found = shown(capsys, "r")
    assert (found["of"], found["layer"]) == ("r", "run")
    expected = {
        "mode": ("approve", "run"),
        "false_alarms_per_10k": (0.5, "run"),
        "patience": (20, "project"),
        "allow_lr_scale": (True, "collector"),
    }
    assert {name: values(found)[name] for name in expected} == expected
    assert main(["policy", "r", "unset", "mode"]) == 0
    assert capsys.readouterr().out == "run r: mode is no longer set\n"
    assert values(shown(capsys, "r", "show"))["mode"] == ("auto", "default")
    assert main(["policy", "--collector"]) == 0
    assert "first_run_mode        observe   collector" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "whose policy? Give a RUN, --project PROJECT or --collector"),
        (["set", "mode=auto"], "whose policy?"),
        (["r", "sett"], "'sett' is none of show, set, unset"),
        (["r", "set"], "`policy set` needs values"),
        (["r", "show", "mode"], "`policy show` takes no values"),
        (["r", "set", "mode"], "'mode' must be NAME=VALUE"),
        (["r", "set", "depht=3"], "no policy has a value 'depht'; the values are: mode, name"),
        (["r", "set", "mode=always"], "nothing was changed"),
        (["r", "set", "patience=NaN"], "patience must be a whole number, not 'NaN'"),
        (["r", "set", "batch_cost=1e999"], "batch_cost must be"),
    ],
)
def test_a_wrong_argument_of_policy_is_one_sentence(
    collector_client: Client, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    trained(collector_client, "r", 2)
    assert main(["policy", *arguments]) == 2
    assert sentence in capsys.readouterr().err
