import time
from typing import Any

import pytest
import sqlalchemy as sa

from db.records.access import Scope
from lossguard.cli.checks.check import Check
from lossguard.cli.checks.collector import checks
from lossguard.run.settings import Settings
from tests.dashboard.serving import serving
from tests.lossguard.collectors import FakeCollector
from tests.monitor.tokens import create_token


def look(url: str | None, token: str | None = None, *scopes: str, **others: Any) -> dict[str, Check]:
    return {each.name: each for each in checks(Settings.read({}, url=url, token=token, **others), scopes)}


def answers(release: str, time_ahead: float) -> Any:
    def fault(method: str, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/token"):
            return 200, {"name": "ci", "scopes": ["read"], "project": "gpt", "run": None}
        if path.endswith("/collector"):
            return 200, {"version": release, "time": time.time() + time_ahead}
        return None

    return fault


@pytest.mark.parametrize(("ahead", "state"), [(0.5, "ok"), (-20.0, "warning"), (400.0, "problem")])
def test_clocks_that_differ_are_seen(
    collector: FakeCollector, monkeypatch: pytest.MonkeyPatch, ahead: float, state: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # the answer takes no time
    collector.fault = answers("0.1.0", ahead)
    clock = look(collector.url)["clock"]
    assert clock.state == state
    assert ("behind" if ahead < 0 else "ahead of") in clock.sentence


def test_a_token_that_lacks_a_scope_and_another_release_are_seen(collector: FakeCollector) -> None:
    collector.fault = answers("9.9", 0.0)
    found = look(collector.url, "t", "report", "read")
    assert found["token"].sentence == "ci may read, for the project gpt only; it lacks report"
    assert found["token"].mend == "create a token with --scope report, and set LOSSGUARD_TOKEN to it"
    assert (found["token"].state, found["collector"].state) == ("problem", "warning")


def test_an_unknown_token_is_a_problem_and_one_that_all_can_read_a_warning(sqlite_engine: sa.Engine) -> None:
    secret = create_token(sqlite_engine, "t", Scope.REPORT)
    with serving(sqlite_engine) as url:
        assert look(url, "lg_wrong")["token"].state == "problem"
        assert look(url, secret, "report")["token"].sentence == "t may report"


def test_no_collector_is_a_warning_and_one_that_does_not_answer_a_problem() -> None:
    assert look(None)["collector"].state == "warning"
    assert look("http://127.0.0.1:1")["collector"].state == "problem"


def test_the_remedy_is_a_command_that_can_be_typed(sqlite_engine: sa.Engine, collector: FakeCollector) -> None:
    create_token(sqlite_engine, "t", Scope.REPORT)
    with serving(sqlite_engine) as url:
        found = look(url, None, "report")["token"]
        assert found.sentence == f"the collector at {url} asks for a token, and none is given (LOSSGUARD_TOKEN)"
        assert "`lossguard-server token create NAME --scope report` makes one" in str(found.mend)
    collector.fault = lambda method, path, body: (404, {})
    assert str(look(collector.url)["collector"].mend).startswith("correct LOSSGUARD_URL")
