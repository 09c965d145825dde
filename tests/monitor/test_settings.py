"""The collector opens itself to the network only with a token."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from lossguard.vocabulary.errors import ConfigurationError
from monitor.settings import Settings, UnsafeBind, check_bind, misspelt, table


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_loopback_needs_no_token(host: str) -> None:
    check_bind(host, Settings())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_anything_else_needs_one(host: str) -> None:
    with pytest.raises(UnsafeBind, match="LOSSGUARD_TOKEN"):
        check_bind(host, Settings())
    check_bind(host, Settings(token=SecretStr("x" * 16)))


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "sqlite:///elsewhere.db")
    assert Settings().database_url == "sqlite:///elsewhere.db"


@pytest.mark.parametrize("given", ["*", "127.0.0.1,proxy", "10.0.0.1/8"])
def test_only_addresses_and_networks_are_trusted_proxies(given: str) -> None:
    Settings(trusted_proxies="10.0.0.0/8, ::1")
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(trusted_proxies=given)


def test_the_page_of_settings_is_up_to_date() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/settings.md").read_text()
    assert table() in page, "docs/reference/settings.md is out of date; update it with: python -m monitor settings"
    assert all(field.description for field in Settings.model_fields.values())


def test_an_unusable_order_key_is_refused_without_being_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef\n")
    assert Settings(order_key_file=str(file)).order_signing_key() == "0123456789abcdef"
    assert Settings().order_signing_key() is None
    monkeypatch.setenv("LOSSGUARD_ORDER_KEY", "my secret")
    with pytest.raises(ConfigurationError, match="at least 16 visible ASCII characters") as caught:
        Settings().order_signing_key()
    assert "my secret" not in str(caught.value) + repr(Settings())


def test_a_line_break_at_the_end_of_a_token_is_not_part_of_it() -> None:
    token = Settings(token=SecretStr("secret-of-16-chr\n")).token
    assert token is not None
    assert token.get_secret_value() == "secret-of-16-chr"


@pytest.mark.parametrize("given", ["secret", "x" * 15, " " * 16, " \n"])
def test_a_token_that_can_be_guessed_is_refused_without_being_shown(given: str) -> None:
    with pytest.raises(ValidationError, match="a token has at least 16 characters") as caught:
        Settings(token=SecretStr(given))
    assert given not in str(caught.value.errors()[0]["msg"])


def test_a_variable_that_looks_like_a_setting_is_named_and_one_of_the_trainer_or_of_the_dashboard_is_not() -> None:
    others = ("LOSSGUARD_MODE", "LOSSGUARD_RUN_ID", "LOSSGUARD_DASHBOARD_URL", "LOSSGUARD_TOKEN_FILE", "LOSSGUARD_URL")
    wrong = {"LOSSGUARD_TOKN": "TOKEN", "LOSSGUARD_DATABASE": "DATABASE_URL", "LOSSGUARD_LEASE_SECS": "LEASE_SECONDS"}
    found = misspelt(["LOSSGUARD_TOKEN", "TOKEN", *others, *wrong])
    assert found == {name: f"LOSSGUARD_{setting}" for name, setting in wrong.items()}
