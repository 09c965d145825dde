"""`lossguard rollback`, `hold` and `release` against a real collector."""

import json
from io import StringIO
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from lossguard.vocabulary.errors import Unreachable
from tests.lossguard.cli.small_runs import trained


def test_a_person_rolls_back_holds_and_releases_a_run(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "zoë")
    trained(collector_client, "r")
    assert main(["rollback", "r", "--to", "12", "--skip", "11:15", "--reason", "bad shard", "--yes"]) == 0
    out = capsys.readouterr().out
    assert out == "Intervention 1: rollback to 10, ordered; batches 11 to 14 skipped\n  bad shard\n"
    assert main(["hold", "r", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["run"], held["intervention"]["kind"], held["intervention"]["state"]) == ("r", "hold", "ordered")
    assert main(["hold", "r", "--yes"]) == 1
    assert capsys.readouterr().err == "lossguard: the run is held, or about to be; nothing was changed\n"
    assert main(["release", "r", "--yes"]) == 0
    trail = collector_client.get("/audit")
    assert [entry["action"] for entry in trail] == ["release", "hold", "rollback"]
    assert trail[0]["who"].startswith("zoë (token ")


def test_a_rollback_may_lower_the_learning_rate_and_switch_on_remedies(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "y")  # type: ignore[func-returns-value]
    trained(collector_client, "r", capabilities=["rollback", "lr-scale", "remedy:clip", "remedy:z_loss"])
    arguments = ["rollback", "r", "--to", "12", "--skip", ":10", "--lr-scale", "0.5"]
    assert main([*arguments, "--remedy", "clip", "--remedy", "z_loss"]) == 0
    changes = "; learning rate x 0.5; remedies: clip, z_loss"
    assert asked == [
        f"Roll r back to step 12 or the newest checkpoint before it{changes} (running, now at step 19)? [y/N] "
    ]
    assert capsys.readouterr().out.startswith(f"Intervention 1: rollback to 10, ordered{changes}\n")
    assert main([*arguments, "--remedy", "moments", "--yes"]) == 1
    said = "this run has not registered the remedy 'moments': its remedies are clip, z_loss; nothing was changed"
    assert capsys.readouterr().err == f"lossguard: {said}\n"


def test_without_a_yes_nothing_is_ordered(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "n")  # type: ignore[func-returns-value]
    run = trained(collector_client, "r")
    assert main(["rollback", "r", "--to", "12"]) == 1
    assert asked == ["Roll r back to step 12 or the newest checkpoint before it (running, now at step 19)? [y/N] "]
    assert main(["hold", "r"]) == 1
    assert run.get()["interventions"] == []
    assert capsys.readouterr().err == "lossguard: nothing was changed\n" * 2


def test_an_order_that_the_collector_cannot_give_is_said_in_its_words(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "r", capabilities=[])
    assert main(["rollback", "r", "--yes"]) == 1
    assert "this run only reports: it cannot roll back; nothing was changed" in capsys.readouterr().err


def test_an_order_that_was_given_is_not_called_failed_when_the_collector_stops_answering(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(collector_client, "r")
    has_ordered: list[bool] = []
    request = Client.request

    def cut_off_after_the_order(client: Client, method: str, path: str, *arguments: Any, **more: Any) -> Any:
        if has_ordered:
            raise Unreachable("no collector answers")
        if method == "POST":
            has_ordered.append(True)
        return request(client, method, path, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Client, "request", cut_off_after_the_order)
        assert main(["hold", "r", "--yes"]) == 4
    said = "the hold is ordered; what it led to cannot be read: no collector answers"
    assert capsys.readouterr().err == f"lossguard: {said}\n"
    assert [each["kind"] for each in run.get()["interventions"]] == ["hold"]


def test_where_nobody_can_answer_the_error_names_the_option(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(collector_client, "r", 2)
    monkeypatch.setattr("sys.stdin", StringIO())
    assert main(["hold", "r"]) == 1
    assert capsys.readouterr().err == (
        "lossguard: nothing was changed: nobody answers here; give --yes to go on without being asked\n"
    )
    assert run.get()["interventions"] == []


def test_an_order_for_a_run_that_has_ended_says_what_it_waits_for(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "r").finish()
    assert main(["rollback", "r", "--to", "12", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "The run is finished: this is carried out when a process resumes it."
    )
