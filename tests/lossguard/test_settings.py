from pathlib import Path
from typing import Any

import pytest

import lossguard
from lossguard.settings import Mode, Settings

URL = "http://127.0.0.1:8000"


def test_without_a_collector_a_run_is_offline() -> None:
    settings = Settings.read({})
    assert settings.mode is Mode.OFFLINE
    assert settings.directory == Path(".lossguard")


def test_an_address_turns_a_run_online_and_loses_its_trailing_slash() -> None:
    settings = Settings.read({"LOSSGUARD_URL": URL + "/"})
    assert (settings.mode, settings.url) == (Mode.ONLINE, URL)


def test_only_rank_0_records() -> None:
    assert Settings.read({"LOSSGUARD_URL": URL, "LOSSGUARD_MODE": "online", "RANK": "1"}).mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, "RANK": "1"}, mode="online").mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, "RANK": "0"}).mode is Mode.ONLINE


def test_an_argument_goes_before_the_environment() -> None:
    env = {"LOSSGUARD_MODE": "off", "LOSSGUARD_DIR": "env", "LOSSGUARD_RUN_ID": "env", "LOSSGUARD_TOKEN": "env"}
    settings = Settings.read(env, mode="offline", directory="arg", run_id="arg", token="arg")
    assert (settings.mode, settings.directory) == (Mode.OFFLINE, Path("arg"))
    assert (settings.run_id, settings.token) == ("arg", "arg")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOSSGUARD_URL", "localhost:8000"),
        ("LOSSGUARD_URL", "http://"),
        ("LOSSGUARD_URL", "http://[::1"),
        ("LOSSGUARD_URL", "http://host:port"),
        ("LOSSGUARD_URL", "ftp://host"),
        ("LOSSGUARD_MODE", "maybe"),
        ("RANK", "first"),
        ("WORLD_SIZE", "-1"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable) as problem:
        Settings.read({variable: value})
    assert value in str(problem.value)


def test_an_impossible_port_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="Port out of range 0-65535"):
        Settings.read({"LOSSGUARD_URL": "http://127.0.0.1:80000"})


def test_a_bad_address_is_reported_at_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "collector:8000")
    with pytest.raises(ValueError, match="LOSSGUARD_URL='collector:8000' is not the address of a collector"):
        lossguard.init("p", directory=tmp_path)


def test_online_without_an_address_is_reported_at_init(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LOSSGUARD_URL"):
        lossguard.init("p", mode="online", directory=tmp_path)


@pytest.mark.parametrize("project", ["", "  ", "x" * 200, "a\tb", "\ud800"])
def test_a_project_needs_a_name(project: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="project="):
        lossguard.init(project, directory=tmp_path)


@pytest.mark.parametrize("run_id", ["../x", "a/b", ".hidden", "x" * 129])
def test_a_run_id_cannot_leave_its_folder(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run_id="):
        lossguard.init("p", run_id=run_id, directory=tmp_path)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(lossguard.ConfigurationError, match="cannot be written"):
        lossguard.init("p", directory=tmp_path / "file")


def test_a_project_with_slashes_and_dots_stays_below_the_directory(tmp_path: Path) -> None:
    for project in ("a/b", "..", "."):
        run = lossguard.init(project, directory=tmp_path)
        assert run.directory is not None
        assert run.directory.parent.parent == tmp_path
        run.finish()


@pytest.mark.parametrize(
    "wrong",
    [{"name": "x" * 257}, {"name": 5}, {"name": "\ud800"}, {"total_steps": -5}, {"total_steps": 1.5}],
)
def test_what_the_collector_would_refuse_is_reported_at_init(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(lossguard.ConfigurationError, match=next(iter(wrong))):
        lossguard.init("p", directory=tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
