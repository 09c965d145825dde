"""Who may act through the dashboard, and what is said when the collector does not do it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from dashboard import operator_actions
from dashboard.operator_actions import Deed, NotDone, TokenWanted, lends
from db import access
from db.engine import writing
from monitor.settings import Settings
from tests.dashboard.serving import serving
from tests.db.seed import add_run

LOCAL = {"Host": "localhost:8501"}
HOLD = Deed("Release", "Release?", "Released.", "POST", "/runs/r1/release")
POLICY = Deed("Write", "Write?", "Written.", "PUT", "/runs/r1/policy", {"patience": 9})


@pytest.mark.parametrize(
    ("listens_on", "headers", "told", "lent"),
    [
        ("127.0.0.1", LOCAL, None, True),
        ("::1", {"host": "[::1]:8501"}, None, True),
        ("127.0.0.1", LOCAL, "0", False),
        ("0.0.0.0", LOCAL, None, False),
        ("0.0.0.0", {"Host": "lossguard.example"}, "1", True),
        (None, LOCAL, None, False),
        ("127.0.0.1", LOCAL | {"X-Forwarded-For": "10.0.0.7"}, None, False),
        ("127.0.0.1", {"Host": "evil.example"}, None, False),
        ("127.0.0.1", {}, None, False),
    ],
)
def test_the_dashboards_token_is_lent_at_this_machine_alone(
    listens_on: str | None, headers: dict[str, str], told: str | None, lent: bool
) -> None:
    assert lends(listens_on, headers, told) is lent


@pytest.fixture
def tokens(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A collector with one run, that the dashboard asks; its tokens by name."""
    with writing(sqlite_engine) as session:
        add_run(session)
        made = {
            name: access.create_token(session, name=name, scopes=[scope], project=None, now=1.0)[1]
            for name, scope in (("ada", access.Scope.OPERATE), ("ron", access.Scope.READ))
        }
    with serving(sqlite_engine, Settings(token=SecretStr("owner"))) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url + "/")
        yield made


def test_what_the_collector_does_not_do_is_a_plain_sentence(tokens: dict[str, str]) -> None:
    with pytest.raises(TokenWanted, match=r"asks for a token\. Nothing was changed"):
        operator_actions.act(POLICY, None)
    with pytest.raises(TokenWanted, match="does not know this token"):
        operator_actions.act(POLICY, "guessed")
    with pytest.raises(TokenWanted, match="'ron' has the scopes read; this needs operate"):
        operator_actions.act(POLICY, tokens["ron"])
    with pytest.raises(NotDone, match=r"not possible now: the run is not held\. Nothing"):
        operator_actions.act(HOLD, tokens["ada"])
    with pytest.raises(NotDone, match="does not know it: there is no run 'r2'"):
        operator_actions.act(Deed("Release", "", "", "POST", "/runs/r2/release"), tokens["ada"])
    with pytest.raises(NotDone, match="refused: patience must be at least 1, not 0"):
        operator_actions.act(Deed("Write", "", "", "PUT", "/runs/r1/policy", {"patience": 0}), tokens["ada"])
    assert operator_actions.act(POLICY, tokens["ada"])["patience"] == 9


def test_a_collector_that_is_away_is_a_plain_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:9")
    with pytest.raises(NotDone, match=r"No collector answers at http://127.0.0.1:9 \(.*\). Nothing was changed"):
        operator_actions.act(HOLD, None)


class Stranger(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def asked(monkeypatch: pytest.MonkeyPatch, answers: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """A server in the collector's place, for one request."""
    with HTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("LOSSGUARD_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        thread.join()


def test_something_else_at_the_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(monkeypatch, Stranger), pytest.raises(NotDone, match="is not a Lossguard collector"):
        operator_actions.act(HOLD, None)


class Cut(Stranger):
    """Takes what it is asked, and hangs up without a word."""

    def do_POST(self) -> None:
        self.close_connection = True


class Gateway(Stranger):
    """A proxy that the collector behind it did not answer."""

    def do_POST(self) -> None:
        self.send_error(504)


@pytest.mark.parametrize(("answers", "why"), [(Cut, "ProtocolError"), (Gateway, "504")])
def test_what_was_asked_and_not_answered_may_have_been_done(
    monkeypatch: pytest.MonkeyPatch, answers: type[Stranger], why: str
) -> None:
    with asked(monkeypatch, answers), pytest.raises(NotDone, match=rf"gave no answer \({why}\)\. It may have been"):
        operator_actions.act(HOLD, None)
