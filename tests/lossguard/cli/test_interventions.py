import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from db.records import access
from db.store.engine import reading
from lossguard.__main__ import main
from tests.dashboard.live import report_a_spike
from tests.dashboard.serving import serving


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


def test_a_dry_run_says_what_is_known_and_changes_nothing(
    url: str, sqlite_engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["approve", "asking", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Run asking, intervention 1: rollback to step" in said
    assert "Not asked: this trainer's release does not answer" in said
    assert "device-hours" in said
    assert main(["approve", "asking", "--dry-run", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["run"], found["state"], found["restorable"]) == ("asking", "proposed", None)
    assert "approve" not in dict(trail(sqlite_engine))


def test_a_dry_run_fails_where_the_trainer_would_refuse(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lossguard import Client

    with Client(url) as client:
        body = {"id": "asking", "project": "gpt-small", "capabilities": ["rollback", "limits:max_depth=1"]}
        client.request("POST", "/runs", body | {"started_at": 1.0})
    assert main(["approve", "asking", "--dry-run"]) == 1
    assert "The trainer would refuse it: it discards" in capsys.readouterr().out


def test_an_approval_asks_first_and_names_the_person(
    url: str, sqlite_engine: sa.Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "zoë")
    typed(monkeypatch, "")
    assert main(["approve", "asking"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    typed(monkeypatch, "y")
    assert main(["approve", "asking", "--intervention", "1"]) == 0
    assert "intervention 1 is approved: it is ordered" in capsys.readouterr().out
    assert dict(trail(sqlite_engine))["approve"].startswith("zoë (token ")
    assert main(["approve", "asking", "--yes"]) == 1
    assert "no intervention of asking waits for approval" in capsys.readouterr().err


def test_a_rejection_with_yes_asks_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reject", "asking", "--yes"]) == 0
    assert "intervention 1 is rejected" in capsys.readouterr().out


def test_a_mistake_gets_one_sentence(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reject", "asking", "--intervention", "9"]) == 1
    assert "no intervention 9 of asking waits for approval" in capsys.readouterr().err
    for unknown in ("unknown", "../x"):
        assert main(["approve", unknown]) == 3
        assert "no run has the id or the name" in capsys.readouterr().err
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:1")
    assert main(["approve", "asking"]) == 4
    assert "no collector answers" in capsys.readouterr().err
    monkeypatch.delenv("LOSSGUARD_URL")
    assert main(["approve", "asking"]) == 2
    assert "LOSSGUARD_URL" in capsys.readouterr().err
