"""Bad input of any command is one line on standard error and exit code 2."""

import pytest

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
