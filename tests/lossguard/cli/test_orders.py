"""`lossguard rollback`, `hold` and `release` against a real collector."""

from io import StringIO
from typing import Any

import pytest

from lossguard import Client
from lossguard.vocabulary.errors import Unreachable
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


def test_a_person_rolls_back_holds_and_releases_a_run(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "zoë")
    trained(collector_client, "r")
    out = cli("rollback", "r", "--to", "12", "--skip", "11:15", "--reason", "bad shard", "--yes")
    assert out == "Intervention 1: rollback to 10, ordered; batches 11 to 14 skipped\n  bad shard\n"
    held = cli.json("hold", "r")
    assert (held["run"], held["intervention"]["kind"], held["intervention"]["state"]) == ("r", "hold", "ordered")
    assert cli.fails(1, "hold", "r", "--yes") == "lossguard: the run is held, or about to be; nothing was changed\n"
    cli("release", "r", "--yes")
    trail = collector_client.get("/audit")
    assert [entry["action"] for entry in trail] == ["release", "hold", "rollback"]
    assert trail[0]["who"].startswith("zoë (token ")


def test_a_rollback_may_lower_the_learning_rate_and_switch_on_remedies(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "y")  # type: ignore[func-returns-value]
    trained(collector_client, "r", capabilities=["rollback", "lr-scale", "remedy:clip", "remedy:z_loss"])
    arguments = ["rollback", "r", "--to", "12", "--skip", ":10", "--lr-scale", "0.5"]
    said = cli(*arguments, "--remedy", "clip", "--remedy", "z_loss")
    changes = "; learning rate x 0.5; remedies: clip, z_loss"
    assert asked == [f"Roll r back to step 10, skipping no batches{changes} (running, now at step 19)? [y/N] "]
    assert said.startswith(f"Intervention 1: rollback to 10, ordered{changes}\n")
    said = "this run has not registered the remedy 'moments': its remedies are clip, z_loss; nothing was changed"
    assert cli.fails(1, *arguments, "--remedy", "moments", "--yes") == f"lossguard: {said}\n"


def test_without_a_yes_nothing_is_ordered(collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "lossguard: nothing was changed: nobody answers here; give --yes to go on without being asked\n"
    asked: list[str] = []
    run = trained(collector_client, "r")
    with monkeypatch.context() as patched:
        patched.setattr("builtins.input", lambda prompt: asked.append(prompt) or "n")  # type: ignore[func-returns-value]
        assert (
            cli.fails(1, "rollback", "r", "--to", "12")
            == cli.fails(1, "hold", "r")
            == "lossguard: nothing was changed\n"
        )
    assert asked[:1] == ["Roll r back to step 10, skipping batches 10 to 209 (running, now at step 19)? [y/N] "]
    monkeypatch.setattr("sys.stdin", StringIO())
    assert cli.fails(1, "hold", "r") == nobody
    assert run.get()["interventions"] == []


def test_an_order_that_was_given_is_not_called_failed_when_the_collector_stops_answering(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
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
        error = cli.fails(4, "hold", "r", "--yes")
    said = "the hold is ordered; what it led to cannot be read: no collector answers"
    assert error == f"lossguard: {said}\n"
    assert [each["kind"] for each in run.get()["interventions"]] == ["hold"]


def test_an_order_for_a_run_that_has_ended_says_what_it_waits_for(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "r").finish()
    assert cli("rollback", "r", "--to", "12", "--yes").splitlines()[-1] == (
        "The run is finished: this is carried out when a process resumes it."
    )
