from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from db.records import access
from db.store.engine import reading
from tests.dashboard.live import report_a_spike
from tests.dashboard.serving import serving
from tests.lossguard.cli.calls import Cli


@pytest.fixture
def url(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A collector with a proposed rollback of the run "asking"."""
    report_a_spike(sqlite_engine)
    with serving(sqlite_engine) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        yield url


def trail(engine: sa.Engine) -> list[tuple[str, str]]:
    """(action, author), the newest first."""
    with reading(engine) as session:
        return [(row.action, row.who) for row in access.trail(session)]


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: text)


def test_a_dry_run_says_what_is_known_and_changes_nothing(url: str, sqlite_engine: sa.Engine, cli: Cli) -> None:
    said = cli("approve", "asking", "--dry-run")
    assert "Run asking, intervention 1: rollback to step" in said
    assert "Not asked: this trainer's release does not answer" in said
    assert "device-hours" in said
    found: dict[str, Any] = cli.json("approve", "asking", "--dry-run")
    assert (found["run"], found["state"], found["restorable"]) == ("asking", "proposed", None)
    assert "approve" not in dict(trail(sqlite_engine))


def test_a_dry_run_fails_where_the_trainer_would_refuse(url: str, cli: Cli) -> None:
    from lossguard import Client

    with Client(url) as client:
        body = {"id": "asking", "project": "gpt-small", "capabilities": ["rollback", "limits:max_depth=1"]}
        client.request("POST", "/runs", body | {"started_at": 1.0})
    assert "The trainer would refuse it: it discards" in cli.fails(1, "approve", "asking", "--dry-run")


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
