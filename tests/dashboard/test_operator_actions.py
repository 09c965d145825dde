"""Who may act through the dashboard, and what it reports when an action fails."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from dashboard import operator_actions
from dashboard.operator_actions import ActionFailed, OperatorAction, TokenRequired, may_use_own_token
from db.records import access
from db.store.engine import writing
from monitor.settings import Settings
from tests.answering import answering
from tests.dashboard.serving import serving
from tests.db.seed import add_run

LOCAL = {"Host": "localhost:8501"}
RELEASE = OperatorAction("Release", "Release?", "Released.", "/runs/r1/release")
POLICY = OperatorAction("Write", "Write?", "Written.", "/runs/r1/policy", "PUT", {"patience": 9})


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
        operator_actions.perform(OperatorAction("Release", "", "", "/runs/r2/release"), tokens["ada"])
    with pytest.raises(ActionFailed, match="refused: patience must be at least 1, not 0"):
        operator_actions.perform(
            OperatorAction("Write", "", "", "/runs/r1/policy", "PUT", {"patience": 0}), tokens["ada"]
        )
    assert operator_actions.perform(POLICY, tokens["ada"])["patience"] == 9


def test_an_unreachable_collector_is_reported_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:9")
    with pytest.raises(ActionFailed, match=r"No collector answers at http://127.0.0.1:9 \(the connection is refused\)"):
        operator_actions.perform(RELEASE, None)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (200, "is not a Lossguard collector"),
        (None, r"did not answer the request \(the connection was lost\)\. It may have been performed"),
        (504, r"did not answer the request \(504\)\. It may have been performed"),
    ],
)
def test_a_server_without_an_answer_of_a_collector_is_reported(
    monkeypatch: pytest.MonkeyPatch, status: int | None, why: str
) -> None:
    with answering(status, b"<html>hello</html>") as other:
        monkeypatch.setenv("LOSSGUARD_URL", other.url)
        with pytest.raises(ActionFailed, match=why):
            operator_actions.perform(RELEASE, None)


def test_after_an_action_that_no_collector_answered_the_next_ones_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(None) as silent:
        monkeypatch.setenv("LOSSGUARD_URL", silent.url)
        with pytest.raises(operator_actions.NoAnswer):
            operator_actions.perform_all([RELEASE, RELEASE], None)
    assert len(silent.asked) == 1
