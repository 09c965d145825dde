import logging
import sys

import pytest
from tqdm import tqdm

from lossguard.vocabulary.errors import LogOnce, never_raises


def test_a_key_is_logged_once_until_it_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce()
    assert not log_once.reset("a")
    for message in ("first", "second"):
        log_once.warn_once("a", message)
    assert log_once.reset("a")
    log_once.warn_once("a", "third")
    LogOnce(quiet=True).warn_once("a", "fourth")
    assert caplog.messages == ["first", "third"]


def test_a_message_has_a_line_of_its_own_beside_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("lossguard"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        with tqdm(total=4, mininterval=0, file=sys.stderr) as bar:
            bar.update(1)
            LogOnce().warn("rolled back")
            bar.update(1)
    finally:
        logger.removeHandler(handler)
    drawn = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "rolled back" in drawn
    assert [line for line in drawn if "2/4" in line]


def test_an_error_in_a_method_that_never_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Measurement:
        log_once = LogOnce()

        @never_raises
        def divide(self, by: int) -> float:
            return 1 / by

    assert [Measurement().divide(by) for by in (0, 0, 2)] == [None, None, 0.5]
    assert caplog.messages == ["divide failed, and training continues: ZeroDivisionError('division by zero')"]
