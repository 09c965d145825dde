import pytest

from lossguard.log_once import LogOnce


def test_a_key_is_logged_once_until_it_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce()
    assert not log_once.reset("a")
    for message in ("first", "second"):
        log_once.warn_once("a", message)
    assert log_once.reset("a")
    log_once.warn_once("a", "third")
    assert caplog.messages == ["first", "third"]


def test_a_quiet_one_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce(quiet=True)
    log_once.warn_once("a", "first")
    log_once.warn("second")
    assert caplog.messages == []
