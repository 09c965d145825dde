import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
import sqlalchemy as sa

from db.records import access
from db.store.engine import reading
from lossguard import Client
from lossguard.cli.commands.steering import skipped
from lossguard.vocabulary.errors import ConfigurationError, Unreachable
from tests.dashboard.live import report_a_spike
from tests.dashboard.serving import serving
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


@pytest.fixture
def url(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A collector with a proposed rollback of the run "asking"."""
    report_a_spike(sqlite_engine)
    with serving(sqlite_engine) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        yield url


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """The questions that are asked from now on, and answered with this text."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or text)  # type: ignore[func-returns-value]
    return asked


def change_answers(monkeypatch: pytest.MonkeyPatch, end: str, change: Callable[[Any], Any]) -> None:
    """Of requests for paths that end like this."""
    get = Client.get
    monkeypatch.setattr(
        Client, "get", lambda client, path: change(get(client, path)) if path.endswith(end) else get(client, path)
    )


def with_another(run: Any, **facts: Any) -> Any:
    """The run, with one more intervention like its last one, if it has any."""
    return run | {"interventions": run["interventions"] + [each | facts for each in run["interventions"][-1:]]}


def trail(engine: sa.Engine) -> list[tuple[str, str]]:
    """(action, author), the newest first."""
    with reading(engine) as session:
        return [(row.action, row.who) for row in access.trail(session)]


def test_a_dry_run_says_what_is_known_and_changes_nothing(url: str, sqlite_engine: sa.Engine, cli: Cli) -> None:
    said = cli("approve", "asking", "--dry-run")
    assert "Run asking, intervention 1: rollback to step" in said
    assert "Not asked: this trainer's release does not answer" in said
    assert "device-hours" in said
    found: dict[str, Any] = cli.json("approve", "asking", "--dry-run")
    assert (found["run"], found["state"], found["restorable"]) == ("asking", "proposed", None)
    assert "approve" not in dict(trail(sqlite_engine))


def test_a_dry_run_fails_where_the_trainer_would_refuse(url: str, cli: Cli) -> None:
    with Client(url) as client:
        body = {"id": "asking", "project": "gpt-small", "capabilities": ["rollback", "limits:max_depth=1"]}
        client.request("POST", "/runs", body | {"started_at": 1.0})
    assert "The trainer would refuse it: it discards" in cli.fails(1, "approve", "asking", "--dry-run")


def test_a_dry_run_fails_where_the_checkpoint_is_gone(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    change_answers(monkeypatch, "/preflight", lambda found: found | {"restorable": False})
    assert "Run asking, intervention 1: rollback to step" in cli.fails(1, "approve", "asking", "--dry-run")


def test_one_of_several_that_wait_must_be_chosen(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    change_answers(monkeypatch, "/runs/asking", lambda run: with_another(run, number=2))
    said = "lossguard: several interventions of asking wait for approval: choose --intervention 1, 2\n"
    assert cli.fails(1, "approve", "asking") == said


def test_a_rejection_with_yes_asks_nothing_and_a_wrong_number_is_one_sentence(url: str, cli: Cli) -> None:
    assert "no intervention 9 of asking waits for approval" in cli.fails(1, "reject", "asking", "--intervention", "9")
    assert "intervention 1 is rejected" in cli("reject", "asking", "--yes")


def test_an_approval_asks_first_and_names_the_person(
    url: str, sqlite_engine: sa.Engine, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "zoë")
    typed(monkeypatch, "")
    assert "nothing was changed" in cli.fails(1, "approve", "asking")
    typed(monkeypatch, "y")
    assert "intervention 1 is approved: it is ordered" in cli("approve", "asking", "--intervention", "1")
    assert dict(trail(sqlite_engine))["approve"].startswith("zoë (token ")
    assert "no intervention of asking waits for approval" in cli.fails(1, "approve", "asking", "--yes")


def test_the_rollback_that_is_ordered_is_the_one_that_was_confirmed(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on while the question is open, and saves another checkpoint."""
    run, asked = trained(collector_client, "r"), list[str]()

    def answer(question: str) -> str:
        asked.append(question)
        run.report(20, [2.8] * 400, restorable_steps=[0, 10, 200])
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    cli("rollback", "r")
    (order,) = run.get()["interventions"]
    skipped = f"skipping batches {order['skip_from']} to {order['skip_to'] - 1}"
    assert f"to step {order['rewind_to']}, {skipped}" in asked[0]


def test_a_person_rolls_back_holds_and_releases_a_run(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "r")
    out = cli("rollback", "r", "--to", "12", "--skip", "11:15", "--reason", "bad shard", "--yes")
    assert out == "Intervention 1: rollback to 10, ordered; batches 11 to 14 skipped\n  bad shard\n"
    held = cli.json("hold", "r")
    assert (held["run"], held["intervention"]["kind"], held["intervention"]["state"]) == ("r", "hold", "ordered")
    assert cli.fails(1, "hold", "r", "--yes") == "lossguard: the run is held, or about to be; nothing was changed\n"
    cli("release", "r", "--yes")
    assert [entry["action"] for entry in collector_client.get("/audit")] == ["release", "hold", "rollback"]


def test_a_rollback_may_lower_the_learning_rate_and_switch_on_remedies(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = typed(monkeypatch, "y")
    trained(collector_client, "r", capabilities=["rollback", "lr-scale", "remedy:clip", "remedy:z_loss"])
    arguments = ["rollback", "r", "--to", "12", "--skip", ":10", "--lr-scale", "0.5"]
    said = cli(*arguments, "--remedy", "clip", "--remedy", "z_loss")
    changes = "; learning rate x 0.5; remedies: clip, z_loss"
    assert asked == [f"Roll r back to step 10, skipping no batches{changes} (running, now at step 19)? [y/N] "]
    assert said.startswith(f"Intervention 1: rollback to 10, ordered{changes}\n")
    said = "this run has not registered the remedy 'moments': its remedies are clip, z_loss; nothing was changed"
    assert cli.fails(1, *arguments, "--remedy", "moments", "--yes") == f"lossguard: {said}\n"


def test_without_a_yes_nothing_is_changed(collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(collector_client, "r")
    before = run.get("/policy")
    with monkeypatch.context() as patched:
        asked = typed(patched, "n")
        assert cli.fails(1, "rollback", "r", "--to", "12") == "lossguard: nothing was changed\n"
    assert asked == ["Roll r back to step 10, skipping batches 10 to 209 (running, now at step 19)? [y/N] "]
    monkeypatch.setattr("sys.stdin", StringIO())
    nobody = "lossguard: nothing was changed: nobody answers here; give --yes to go on without being asked\n"
    for command in ("hold r", "note r look", "policy r set mode=auto", "policy r unset mode"):
        assert cli.fails(1, *command.split()) == nobody
    assert (run.get()["interventions"], run.get("/notes"), run.get("/policy")) == ([], [], before)


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


def test_the_intervention_of_an_order_is_printed_though_another_one_came_meanwhile(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(collector_client, "r")
    change_answers(monkeypatch, "/runs/r", lambda run: with_another(run, kind="hold", number=2))
    assert cli("rollback", "r", "--to", "12", "--yes").startswith("Intervention 1: rollback to 10, ordered")


def test_an_order_for_a_run_that_has_ended_says_what_it_waits_for(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "r").finish()
    said = cli("rollback", "r", "--to", "12", "--yes").splitlines()[-1]
    assert said == "The run is finished: this is carried out when a process resumes it."


@pytest.mark.parametrize(
    ("text", "expected"), [(None, (None, None)), ("5:10", (5, 10)), (":10", (None, 10)), ("5:5", (5, 5))]
)
def test_a_range_of_batches_is_a_to_b(text: str | None, expected: tuple[int | None, int | None]) -> None:
    assert skipped(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5:", "9:5", "a:b", "-1:4", "1:2:3", "1" * 17 + ":2"])
def test_anything_else_is_no_range(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be A:B"):
        skipped(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rollback r --lr-scale 0", "--lr-scale 0 must be above 0 and at most 1"),
        ("rollback r --to -3", "--to -3 must be a step"),
        ("rollback r --lr-scale 1.5", "--lr-scale 1.5 must be above 0 and at most 1"),
        ("rollback r --lr-scale nan", "--lr-scale nan must be above 0 and at most 1"),
        ("rollback r --remedy Clip", "--remedy 'Clip' must have 1 to 64 characters of a-z, 0-9 and _"),
        ("note r x --step -1", "--step -1 must be a step, from 0"),
        ("note r \t", "the note is empty"),
    ],
)
def test_arguments_that_no_run_can_take_are_refused_before_anybody_is_asked(
    arguments: str, said: str, cli: Cli
) -> None:
    assert said in cli.fails(2, *arguments.split(" "))


def test_a_note_is_written_at_a_step_or_at_the_newest_one(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "r")
    assert cli("note", "r", "lr was too high", "--step", "12", "--yes") == "noted at step 12 of r\n"
    noted = cli.json("note", "r", " look ")
    assert noted == {"run": "r", "id": noted["id"], "step": 19, "text": "look"}
    assert [(note["step"], note["text"]) for note in run.get("/notes")] == [(12, "lr was too high"), (19, "look")]


@pytest.mark.parametrize("command", ["approve", "reject", "rollback", "hold", "release", "note"])
def test_the_help_has_the_options_of_the_command_before_those_that_all_have(command: str, cli: Cli) -> None:
    options = re.findall(r"^  --(\S+)", cli(command, "--help"), re.MULTILINE)
    assert options[-4:] == ["yes", "json", "url", "token"]
