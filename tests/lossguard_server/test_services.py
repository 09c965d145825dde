"""How the services of one machine end."""

import signal
from collections.abc import Iterator

import pytest

from lossguard_server.processes import CannotRun
from lossguard_server.services import one_sentence

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_program_with_128_and_its_number(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, one_sentence("demo"):
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "\ndemo: stopped; all its processes have ended\n"


def test_a_service_that_is_stopped_has_done_its_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_sentence("serve", interrupted=0):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 0


def test_what_cannot_run_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_sentence("demo"):
        raise CannotRun("the port is in use")
    assert (ended.value.code, capsys.readouterr().err) == (2, "demo: the port is in use\n")
