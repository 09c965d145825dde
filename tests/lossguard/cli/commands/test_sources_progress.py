import io

import pytest

from lossguard.cli.commands import sources
from lossguard.cli.commands.sources import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BAR_SECONDS", 0.0)
    monkeypatch.setattr(sources, "LINE_SECONDS", 0.0)


def test_a_terminal_shows_a_bar_that_is_wiped_out() -> None:
    out = Terminal()
    with ProgressBar(out) as bar:
        bar.show("a run", 500, 1000, "rows")
        bar.say("done")
    assert "[##########..........] a run:  50%, 500 of 1,000 rows" in out.getvalue()
    assert out.getvalue().endswith("\x1b[Kdone\n\r\x1b[K")


def test_elsewhere_it_is_plain_lines_and_what_a_file_says_cannot_steer_the_terminal() -> None:
    out = io.StringIO()
    with ProgressBar(out) as bar:
        bar.show("a\x1b[2Jrun", 500, None, "rows")
        bar.say("step \x1b]0;title\x07\n1")
    assert out.getvalue() == "a [2Jrun: 500 rows\nstep  ]0;title \n1\n"
