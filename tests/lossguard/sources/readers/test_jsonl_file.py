import math
from pathlib import Path

import pytest

from lossguard.sources.columns import Columns
from lossguard.sources.readers.jsonl_file import JsonlParser, runs_in


@pytest.mark.parametrize(
    ("line", "step", "values"),
    [
        (b'{"step": 3, "loss": 2.5, "note": "x", "ok": true}', 3, {"loss": 2.5}),
        (b'{"_step": 3, "train": {"loss": 2.5, "lr": 1}}', 3, {"train/loss": 2.5, "train/lr": 1.0}),
        (b'{"iter": 3.0, "loss": NaN}', 3, {"loss": math.nan}),
        (b'{"global_step": "3", "loss": "Infinity"}', 3, {"loss": math.inf}),
    ],
)
def test_an_object_with_a_step_is_a_row(line: bytes, step: int, values: dict[str, float]) -> None:
    row = JsonlParser().parse(line)
    assert row is not None
    assert row.step == step
    assert row.values == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b'{"loss": 2.5}', b'{"step": 3, "loss": 2.', b'{"step": -1, "loss": 1}', b"{"]
)
def test_other_lines_are_none(line: bytes) -> None:
    assert JsonlParser().parse(line) is None


def test_times_are_seconds_milliseconds_or_dates() -> None:
    texts = [b"1700000000.5", b"1700000000500", b'"2023-11-14T22:13:20.500+00:00"', b"12.5"]
    rows = [JsonlParser().parse(b'{"step": 0, "time": %b, "loss": 1}' % text) for text in texts]
    assert [row and row.time for row in rows] == [1700000000.5, 1700000000.5, 1700000000.5, None]


def test_about_how_many_rows_there_are_is_known_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"step": {step:06}, "loss": 2.5}}\n'.replace(" 0", " 1") for step in range(5_000)))
    (run,) = runs_in(path)
    assert run.size == pytest.approx(5_000, rel=0.1)


@pytest.mark.parametrize("place", [0, 2, 3])
def test_nul_bytes_that_a_crash_leaves_cost_their_own_line_alone(tmp_path: Path, place: int) -> None:
    lines = [b'{"step": %d, "loss": 2.5}' % step for step in range(3)]
    (tmp_path / "log.jsonl").write_bytes(
        b"".join(line + b"\n" for line in [*lines[:place], bytes(999), *lines[place:]])
    )
    (run,) = runs_in(tmp_path / "log.jsonl")
    assert [row.step for row in run.rows()] == [0, 1, 2]


def test_a_last_line_without_its_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 0, "loss": 2.5}\n{"n": 1, "loss": 2.4}')
    (run,) = runs_in(path, Columns("n"))
    assert [row.step for row in run.rows()] == [0, 1]
    path.write_bytes(b'{"n": 0, "loss": 2.5}\n{"n": 1, "loss": 2.')
    assert [row.step for row in run.rows()] == [0]


def test_lines_that_are_cut_or_have_no_number_are_counted_and_objects_without_a_step_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    texts = ['{"config": {}}', '{"step": 0, "loss": 2.5}', '{"step": 1', '{"step": 2, "\\u001bloss": "abc"}', "text"]
    path.write_text("\n".join(texts) + "\n")
    (run,) = runs_in(path)
    assert [row.step for row in run.rows()] == [0]
    path.write_text("\n".join(texts[:2] + texts[3:]))
    list(run.rows())
    assert [each.message for each in caplog.records] == [
        f"{path}: 2 lines were left out, whole or in part; the first is line 3: it is no whole JSON object",
        f"{path}: 1 line was left out, whole or in part; the first is line 3: '\\x1bloss=abc' is no number",
    ]
