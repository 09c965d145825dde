import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

import lossguard
from db.records.access import Scope
from lossguard.cli.commands import doctor
from lossguard.cli.commands.doctor import Check, of_collector, of_machine
from lossguard.run.settings import Settings
from tests.dashboard.serving import serving
from tests.lossguard.collectors import FakeCollector
from tests.monitor.tokens import create_token


def collector_checks(url: str | None, token: str | None = None, *scopes: str) -> dict[str, Check]:
    return {each.name: each for each in of_collector(Settings.read({}, url=url, token=token), scopes)}


def machine_checks(directory: Path, **environment: str) -> dict[str, Check]:
    return {each.name: each for each in of_machine(directory, environment)}


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
    clock = collector_checks(collector.url)["clock"]
    assert clock.state == state
    assert ("behind" if ahead < 0 else "ahead of") in clock.sentence


def test_a_token_that_lacks_a_scope_and_another_release_are_seen(collector: FakeCollector) -> None:
    collector.fault = answers("9.9", 0.0)
    found = collector_checks(collector.url, "t", "report", "read")
    assert found["token"].sentence == "ci may read, for the project gpt only; it lacks report"
    assert found["token"].mend == "create a token with --scope report, and set LOSSGUARD_TOKEN to it"
    assert (found["token"].state, found["collector"].state) == ("problem", "warning")


def test_the_token_is_tried_and_the_remedy_is_a_command_that_can_be_typed(sqlite_engine: sa.Engine) -> None:
    secret = create_token(sqlite_engine, "t", Scope.REPORT)
    with serving(sqlite_engine) as url:
        assert collector_checks(url, secret, "report")["token"].sentence == "t may report"
        assert collector_checks(url, "lg_wrong")["token"].state == "problem"
        found = collector_checks(url, None, "report")["token"]
        assert found.sentence == f"the collector at {url} asks for a token, and none is given (LOSSGUARD_TOKEN)"
        assert found.mend.endswith("`lossguard-server token create NAME --scope report` makes one")


def test_no_collector_is_a_warning_and_one_that_does_not_answer_a_problem(collector: FakeCollector) -> None:
    assert collector_checks(None)["collector"].state == "warning"
    assert collector_checks("http://127.0.0.1:1")["collector"].state == "problem"
    collector.fault = lambda method, path, body: (404, {})
    assert collector_checks(collector.url)["collector"].mend.startswith("correct LOSSGUARD_URL")


def test_a_mode_that_delivers_nothing_and_a_token_that_others_can_read_are_seen(
    collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.fault = answers("0.1.0", 0.0)
    assert not {"mode", "tls"} & collector_checks(collector.url, "t").keys()
    monkeypatch.setattr(doctor, "is_loopback", lambda host: False)
    found = {each.name: each for each in of_collector(Settings.read({}, url=collector.url, token="t", mode="off"), ())}
    assert found["mode"].sentence == "the mode is off: nothing is delivered while a run trains"
    assert found["tls"].sentence == "the token travels over plain HTTP: whoever sees the traffic can use it"


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("free", "state"), [(1 << 40, "ok"), (1 << 30, "warning"), (1 << 20, "problem")])
def test_a_disk_that_is_almost_full_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free))
    assert machine_checks(tmp_path)["disk"].state == state


def test_a_folder_that_is_a_file_is_a_problem_and_one_that_can_be_made_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert machine_checks(tmp_path / "file" / "spools")["folder"].state == "problem"
    assert machine_checks(tmp_path / "new" / "spools")["folder"].sentence.endswith("spools can be made")
    assert not (tmp_path / "new").exists()


def test_spools_that_wait_limits_and_stopped_runs_are_named(tmp_path: Path) -> None:
    with lossguard.init("project", run_id="r1", mode="offline", directory=tmp_path) as run:
        run.log(0, loss=1.0)
    (tmp_path / "project" / "r1" / "limits").write_text("max_depth=ten")
    (tmp_path / "project" / "r1" / "no-orders").write_text("")
    found = machine_checks(tmp_path, LOSSGUARD_ORDER_KEY="short")
    assert "of the run r1 wait for delivery" in found["spools"].sentence
    assert found["spools"].mend.endswith(f"lossguard sync {tmp_path}")
    assert (found["limits"].state, found["orders"].state, found["order key"].state) == ("problem", "warning", "problem")


def refused(*_arguments: object, **_options: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_file_of_limits_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limits").write_text("max_depth=10")
    read_text = Path.read_text
    monkeypatch.setattr(  # other files can be read: the look at PyTorch reads some
        Path, "read_text", lambda path, **more: refused() if path.name == "limits" else read_text(path, **more)
    )
    assert machine_checks(tmp_path)["limits"].sentence == f"{tmp_path / 'limits'} cannot be read (Permission denied)"


def test_a_torch_that_runs_code_of_a_checkpoint_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, state in {"2.5.1+cu124": "problem", "2.6.0": "ok", "2.14.0a0+git1": "ok", "3.0": "ok"}.items():
        monkeypatch.setattr("lossguard.cli.commands.doctor.metadata.version", lambda _name, version=version: version)
        assert machine_checks(tmp_path)["torch"].state == state, version


def test_a_folder_below_one_that_this_user_may_not_search_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, access = os.stat, os.access
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(
        os, "stat", lambda path, **more: refused() if closed in Path(path).parents else stat(path, **more)
    )
    monkeypatch.setattr(os, "access", lambda path, how: path != closed and access(path, how))
    found = machine_checks(closed / "spools" / "runs")
    assert (found["folder"].state, found["folder"].sentence) == ("problem", f"this user cannot write in {closed}")
