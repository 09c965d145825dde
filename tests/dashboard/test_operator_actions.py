"""Who may act through the dashboard, and what it reports when an action fails."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from dashboard import operator_actions
from dashboard.operator_actions import ActionFailed, OperatorAction, TokenRequired, may_use_own_token
from db.records import access
from db.store.engine import writing
from monitor.settings import Settings
from tests.dashboard.serving import serving
from tests.db.seed import add_run

LOCAL = {"Host": "localhost:8501"}
RELEASE = OperatorAction("Release", "Release?", "Released.", "POST", "/runs/r1/release")
POLICY = OperatorAction("Write", "Write?", "Written.", "PUT", "/runs/r1/policy", {"patience": 9})


@pytest.mark.parametrize(
    ("listen_address", "headers", "setting", "allowed"),
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
def test_only_viewers_on_this_machine_act_with_the_dashboards_token(
    listen_address: str | None, headers: dict[str, str], setting: str | None, allowed: bool
) -> None:
    assert may_use_own_token(listen_address, headers, setting) is allowed


@pytest.fixture
def tokens(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A collector with one run, at the address that the dashboard uses; its tokens by name."""
    with writing(sqlite_engine) as session:
        add_run(session)
        created = {
            name: access.create_token(session, name=name, scopes=[scope], project=None, now=1.0)[1]
            for name, scope in (("ada", access.Scope.OPERATE), ("ron", access.Scope.READ))
        }
    with serving(sqlite_engine, Settings(token=SecretStr("owner-of-16-char"))) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url + "/")
        yield created


def test_a_refused_action_is_reported_with_the_collectors_reason(tokens: dict[str, str]) -> None:
    with pytest.raises(TokenRequired, match=r"requires a token\. Nothing was changed"):
        operator_actions.perform(POLICY, None)
    with pytest.raises(TokenRequired, match="does not know this token"):
        operator_actions.perform(POLICY, "guessed")
    with pytest.raises(TokenRequired, match="'ron' has the scopes read; this request needs operate"):
        operator_actions.perform(POLICY, tokens["ron"])
    with pytest.raises(ActionFailed, match=r"not possible now: the run is not held\. Nothing"):
        operator_actions.perform(RELEASE, tokens["ada"])
    with pytest.raises(ActionFailed, match="answers: there is no run 'r2'"):
        operator_actions.perform(OperatorAction("Release", "", "", "POST", "/runs/r2/release"), tokens["ada"])
    with pytest.raises(ActionFailed, match="refused: patience must be at least 1, not 0"):
        operator_actions.perform(
            OperatorAction("Write", "", "", "PUT", "/runs/r1/policy", {"patience": 0}), tokens["ada"]
        )
    assert operator_actions.perform(POLICY, tokens["ada"])["patience"] == 9


def edit(run_id: str) -> OperatorAction:
    return OperatorAction(run_id, "", "", "PATCH", f"/runs/{run_id}", {"note": "x"})


def test_of_several_actions_those_that_failed_are_returned_and_the_others_performed(tokens: dict[str, str]) -> None:
    failures = operator_actions.perform_all([edit("r2"), edit("r1"), edit("r3")], tokens["ada"])
    assert [(action.label, "there is no run" in str(error)) for action, error in failures] == [
        ("r2", True),
        ("r3", True),
    ]
    assert len(operator_actions.perform_all([edit("r2"), edit("r3")], tokens["ada"])) == 2
    with pytest.raises(TokenRequired):
        operator_actions.perform_all([edit("r1"), edit("r2")], None)


def test_after_an_action_that_no_collector_answered_the_next_ones_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def perform(action: OperatorAction, *_: object) -> None:
        asked.append(action.label)
        raise operator_actions.NoAnswer("No collector answers.")

    monkeypatch.setattr(operator_actions, "perform", perform)
    with pytest.raises(operator_actions.NoAnswer, match="No collector answers"):
        operator_actions.perform_all([edit("r1"), edit("r2")], None)
    assert asked == ["r1"]


def test_an_unreachable_collector_is_reported_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:9")
    with pytest.raises(ActionFailed, match=r"No collector answers at http://127.0.0.1:9 \(the connection is refused\)"):
        operator_actions.perform(RELEASE, None)


class OtherServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def collector_replaced_by(monkeypatch: pytest.MonkeyPatch, handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """A server with this handler at the collector's address, for one request."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("LOSSGUARD_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        thread.join()


def test_a_server_that_is_not_a_collector_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        collector_replaced_by(monkeypatch, OtherServer),
        pytest.raises(ActionFailed, match="is not a Lossguard collector"),
    ):
        operator_actions.perform(RELEASE, None)


class ClosedConnection(OtherServer):
    """Reads the request and closes the connection without an answer."""

    def do_POST(self) -> None:
        self.close_connection = True


class GatewayTimeout(OtherServer):
    """A proxy whose collector did not answer."""

    def do_POST(self) -> None:
        self.send_error(504)


@pytest.mark.parametrize(("handler", "why"), [(ClosedConnection, "the connection was lost"), (GatewayTimeout, "504")])
def test_a_request_without_an_answer_may_have_been_performed(
    monkeypatch: pytest.MonkeyPatch, handler: type[OtherServer], why: str
) -> None:
    unknown = rf"did not answer the request \({why}\)\. It may have been performed"
    with collector_replaced_by(monkeypatch, handler), pytest.raises(ActionFailed, match=unknown):
        operator_actions.perform(RELEASE, None)
