"""Bad input of any command is one line on standard error and exit code 2."""

import pytest
from typer.testing import CliRunner

from monitor.cli import tokens
from tests.monitor.cli.command import monitor
from tests.ports import free_port


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("serve", "--host", "0.0.0.0"), {"LOSSGUARD_DATABASE_URL": "sqlite://"}, "LOSSGUARD_TOKEN"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "mysql://x/y"}, "postgresql"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "nonsense"}, "sqlite:///"),
        (("serve",), {"LOSSGUARD_DATABASE_URL": "sqlite:////proc/nowhere/x.db"}, "/proc/nowhere"),
        (("serve",), {"LOSSGUARD_MAX_REPORT_BYTES": "many"}, "LOSSGUARD_MAX_REPORT_BYTES"),
        (("serve",), {"LOSSGUARD_TOKEN": "short"}, "LOSSGUARD_TOKEN: a token has at least 16 characters"),
        (("serve",), {"LOSSGUARD_TRUSTED_PROXIES": "*"}, "LOSSGUARD_TRUSTED_PROXIES"),
        (("backtest", "missing.csv"), {}, "missing.csv"),
        (("backtest", "--run", "r1"), {"LOSSGUARD_DATABASE_URL": "sqlite:///no/store.db"}, "there is no store at no"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    port = ("--port", str(free_port())) if arguments[0] == "serve" else ()
    done = monitor(*arguments, *port, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "mysql://me@host/store", "mysql is not supported"),
        ("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/store", "cannot use the database"),
        ("MAX_RUNS", "many", "LOSSGUARD_MAX_RUNS"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"LOSSGUARD_{name}", value)
    done = CliRunner().invoke(tokens.app, ["list"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert words in done.output
    assert "secret" not in done.output
