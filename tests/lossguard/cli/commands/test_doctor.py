from pathlib import Path

import pytest

from lossguard import Client
from tests.lossguard.cli.calls import Cli


def test_the_doctor_says_what_is_set_and_that_all_is_well(
    collector_client: Client, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LIMITS", "max_depth=10"), ("TOKEN", "lg_abc"), ("ORDER_KEY", "k" * 32)):
        monkeypatch.setenv(f"LOSSGUARD_{name}", value)
    shown = cli.json("doctor", "--directory", str(tmp_path), "--token", "lg_secret")
    settings = {each["name"]: (each["value"], each["from"]) for each in shown["settings"]}
    assert settings["LOSSGUARD_URL"] == (collector_client.url, "environment")
    assert settings["LOSSGUARD_TOKEN"] == ("(9 characters)", "--token")
    assert settings["LOSSGUARD_ORDER_KEY"] == ("(32 characters)", "environment")
    assert settings["LOSSGUARD_MODE"] == ("-", "not set")
    out = cli("doctor", "--directory", str(tmp_path))
    assert "lg_secret" not in out
    assert "max_depth=10" in out
    assert "anybody may operate, read, report" in out


def test_advice_names_the_options_that_were_given_and_else_their_variables(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    nowhere, folder = "http://127.0.0.1:9", str(tmp_path / "file" / "spools")
    shown = cli.fails(1, "doctor", "--url", nowhere, "--directory", folder)
    assert "start it there, or correct --url" in shown
    assert "choose another folder with --directory" in shown
    assert "LOSSGUARD_URL, " not in shown
    monkeypatch.setenv("LOSSGUARD_URL", nowhere)
    monkeypatch.setenv("LOSSGUARD_DIR", folder)
    shown = cli.fails(1, "doctor")
    assert "start it there, or correct LOSSGUARD_URL" in shown
    assert "choose another folder with LOSSGUARD_DIR" in shown


def test_a_setting_that_is_wrong_stands_in_the_way(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_LOCK_WAIT", "soon")
    assert "problem settings   LOSSGUARD_LOCK_WAIT='soon' must be seconds" in cli.fails(1, "doctor")
