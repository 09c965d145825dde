import io

import pytest

from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, cut, printable, table, width_of


class Screen(io.TextIOWrapper):
    """A terminal of one encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        data: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return data.decode(self.encoding)


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "a\x07", "a\u202eb", "a\x9b31m"])
def test_no_text_of_a_run_steers_the_terminal(text: str) -> None:
    screen = Screen()
    Terminal(screen, {"NO_COLOR": "1"}).say(text)
    assert screen.shown().rstrip("\n").isprintable()
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_a_terminal_and_no_color_is_honoured(environment: dict[str, str], colours: bool) -> None:
    screen = Screen()
    Terminal(screen, environment).say(Text("bad", Style.RED))
    assert ("\x1b[31m" in screen.shown()) is colours


def test_a_file_gets_no_colours_and_has_no_width() -> None:
    terminal = Terminal(io.StringIO(), {})
    assert (terminal.has_colours, terminal.width) == (False, None)


def test_a_terminal_without_utf8_gets_ascii() -> None:
    screen = Screen("ascii")
    Terminal(screen, {"NO_COLOR": "1"}).say("loss …", Text(" 1 ± 2 é"), " ▁▂▃▄▅▆▇█▲▼✕")
    assert screen.shown() == "loss ~ 1 +- 2 ? _.-=+*#@^vx\n"


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert [width_of(text) for text in ("abc", "損失", "e\u0301")] == [3, 4, 1]


COLUMNS = (TerminalColumn("NAME", min_width=6), TerminalColumn("STEP", right=True), TerminalColumn("NOTE", rank=1))
ROWS: list[list[str | Text]] = [["a-very-long-name", Text("12"), "kept?"], ["損失損失損失損失", Text("3"), ""]]


def lines(width: int | None) -> list[str]:
    return ["".join(piece.text for piece in line) for line in table(COLUMNS, ROWS, width)]


def test_in_a_file_nothing_is_cut() -> None:
    assert lines(None)[1] == "a-very-long-name    12  kept?"


def test_the_widest_text_that_may_be_cut_is_cut_first() -> None:
    assert lines(24)[1] == "a-very-lon…    12  kept?"
    assert all(width_of(line) == 24 for line in lines(24))


def test_then_the_least_important_column_is_left_out() -> None:
    shown = lines(14)
    assert shown[0] == "NAME      STEP"
    assert shown[1] == "a-very-…    12"
    assert all(width_of(line) <= 14 for line in shown)


def test_a_cut_text_ends_with_an_ellipsis_and_fits() -> None:
    assert [cut(text, 4) for text in ("abcd", "abcde", "損失損")] == ["abcd", "abc…", "損…"]
