import pytest

from lossguard.launch.hooks.warnings import warn_once


def test_a_message_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        warn_once("a hook is missing")
    assert capsys.readouterr().err == "lossguard: a hook is missing\n"


def test_a_closed_stderr_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    warn_once("nobody reads this")
