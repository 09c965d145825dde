"""The reader of printed bytes by itself: what it writes to the journal."""

import json
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.printed_rows import PrintedRows
from lossguard.sources.readers.printed_lines import MAX_LINE

LINE = b"iter %d: loss 2.5, time 13.86ms, mfu 26.88%%"


def read(folder: Path, *chunks: tuple[int, bytes | None], pattern: str | None = None) -> list[dict[str, Any]]:
    """The entries after these chunks of outputs."""
    rows = PrintedRows(str(folder / "a.journal"), pattern)
    for output, data in chunks:
        rows.take(output, data)
    rows.close()
    journal = folder / "a.journal"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def steps(entries: list[dict[str, Any]]) -> list[int]:
    return [each["step"] for each in entries if "values" in each]


def test_a_line_is_read_however_its_bytes_come(tmp_path: Path) -> None:
    text = b"a banner\n" + b"".join(LINE % step + b"\n" for step in range(3))
    described, *rows = read(tmp_path, *((0, text[k : k + 1]) for k in range(len(text))))
    assert described["config"] == {"trainer": "nanoGPT"}
    assert described["what"] == "lines of nanoGPT"
    assert [(each["step"], each["values"]["loss"], each["tracker"]) for each in rows] == [
        (step, 2.5, "text") for step in range(3)
    ]


def test_the_lines_of_two_outputs_do_not_mix(tmp_path: Path) -> None:
    one, other = LINE % 1, LINE % 2
    chunks = [(0, one[:10]), (1, other[:20]), (0, one[10:] + b"\r50%\r"), (1, other[20:] + b"\n")]
    assert steps(read(tmp_path, *chunks)) == [1, 2]


@pytest.mark.parametrize("rubbish", [b"x" * (MAX_LINE + 1), b"\0\xff\x80" * MAX_LINE])
def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path, rubbish: bytes) -> None:
    chunks = [(0, rubbish), (0, rubbish + b"loss\n" + LINE % 1 + b"\n")]
    assert steps(read(tmp_path, *chunks)) == [1]


def test_bytes_that_were_left_out_cost_only_the_lines_that_they_touch_and_a_last_line_without_an_end_is_not_read(
    tmp_path: Path,
) -> None:
    chunks = [(0, LINE % 1 + b"\n" + LINE % 2), (0, None), (0, b"0\n" + LINE % 3 + b"\n" + LINE % 4)]
    assert steps(read(tmp_path, *chunks)) == [1, 3]


def test_the_users_pattern_alone_is_read(tmp_path: Path) -> None:
    text = LINE % 1 + b"\nat 7 ce=3.5\n"
    described, row = read(tmp_path, (0, text), pattern=r"at (?P<step>\d+) ce=(?P<loss>\S+)")
    assert described["what"] == "lines that fit --pattern"
    assert (row["step"], row["values"]) == (7, {"loss": 3.5})
