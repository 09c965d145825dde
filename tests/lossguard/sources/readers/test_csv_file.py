from pathlib import Path

import pytest

from lossguard.sources.columns import Columns
from lossguard.sources.readers.csv_file import CsvParser, runs_in
from tests.lossguard.sources.recorded_source import RecordedSource


def test_columns_are_found_by_their_names_and_empty_cells_say_nothing(tmp_path: Path) -> None:
    """Lightning's CSVLogger writes the values of one step in several lines."""
    text = "epoch,step,train_loss,val_loss\n0,9,2.5,\n0,9,,2.25\n0,19,nan,\n"
    (tmp_path / "metrics.csv").write_text(text)
    (run,) = runs_in(tmp_path)
    rows = list(run.rows())
    assert [(row.step, sorted(row.values)) for row in rows] == [
        (9, ["epoch", "train_loss", "val_loss"]),
        (19, ["epoch", "train_loss"]),
    ]
    assert run.name == f"{tmp_path.name}/metrics"


@pytest.mark.parametrize(
    "text", ["iter;loss\n0;2.5\n1;2.4\n", "iter\tloss\n0\t2.5\n1\t2.4\n", '"iter","loss"\r\n"0","2.5"\r\n"1","2.4"\r\n']
)
def test_delimiters_quotes_and_line_ends_are_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    (run,) = runs_in(tmp_path)
    assert [(row.step, row.values) for row in run.rows()] == [(0, {"loss": 2.5}), (1, {"loss": 2.4})]


def test_named_columns_of_steps_and_times_are_used() -> None:
    parser = CsvParser(Columns("n", "when"))
    parser.parse(b"n,step,when,loss")
    row = parser.parse(b"3,300,2026-01-01T00:00:00+00:00,2.5")
    assert row is not None
    assert (row.step, row.time, row.values) == (3, 1767225600.0, {"step": 300.0, "loss": 2.5})


def test_a_header_that_comes_again_begins_other_columns() -> None:
    """A run that is started again appends to the file."""
    parser = CsvParser()
    rows = [parser.parse(line) for line in (b"step,loss", b"0,2.5", b"step,lr,loss", b"0,0.1,2.5", b"1,broken")]
    assert [None if row is None else row.values for row in rows] == [
        None,
        {"loss": 2.5},
        None,
        {"lr": 0.1, "loss": 2.5},
        None,
    ]


def test_a_watcher_that_begins_again_knows_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n0,2.5\n")
    source = RecordedSource("csv", path)
    source.poll(final=True)
    source.kill()
    path.write_text("step,loss\n0,2.5\n1,2.4\n2,2.3\n")
    source.poll(final=True)
    assert [step for step, _ in source.rows] == [0, 1, 2]


def test_a_watcher_that_begins_again_behind_a_second_header_knows_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,lr\n0,2.5,0.1\n1,2.4,0.1\nstep,lr,loss\n2,0.1,2.3\n")
    source = RecordedSource("csv", path)
    source.poll(final=True)
    source.kill()
    with path.open("a") as file:
        file.write("3,0.1,2.2\n")
    source.poll(final=True)
    assert source.values("loss") == [(0, 2.5), (1, 2.4), (2, 2.3), (3, 2.2)]


def test_a_file_that_is_written_anew_with_another_column_repeats_nothing(tmp_path: Path) -> None:
    """Lightning's CSVLogger writes its whole file again when a metric comes that it did not know."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n0,2.5\n1,2.4\n")
    source = RecordedSource("csv", path)
    source.poll(final=True)
    path.write_text("step,loss,val_loss\n0,2.5,\n1,2.4,2.6\n2,2.3,2.7\n")
    source.poll(final=True)
    assert source.rows == [(0, {"loss": 2.5}), (1, {"loss": 2.4}), (2, {"loss": 2.3, "held_out_loss": 2.7})]


def test_a_table_without_steps_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("name,price\na,1\n")
    (tmp_path / "empty.csv").write_text("")
    assert list(runs_in(tmp_path)) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3,abc,", "'loss=abc' is no number"),
        ("3,1,2,3", "it has 4 cells, the header 3"),
        ("3.5,1,2", "'step=3.5' is no step"),
        (",1,2", "'step=' is no step"),
        ("3,1,2", "it has no line end"),
    ],
)
def test_a_line_that_should_be_a_row_and_is_none_is_counted_with_its_number_and_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, reason: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"step,loss,date\n1,2.5,2026-01-01\n\n2,,2026-01-02\n2,,\n{line}")
    if reason != "it has no line end":
        with path.open("a") as file:
            file.write("\n4,2.0,\n5,x,\n")
    (run,) = runs_in(path)
    assert next(iter(run.rows())).step == 1
    assert not caplog.records, "nothing is said before all of it is read"
    list(run.rows())
    number = "1 line was" if reason == "it has no line end" else "2 lines were"
    assert [each.message for each in caplog.records] == [
        f"{path}: {number} left out, whole or in part; the first is line 6: {reason}"
    ]


def test_a_follower_says_at_its_end_what_the_present_file_had_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n0,2.5\n1,x\n2,x\n")
    source = RecordedSource("csv", path)
    source.poll()
    path.write_text("step,loss\n0,2.5\n1,2.4\n2,x\n")
    source.poll()
    source.kill()
    said = f"{path}: 1 line was left out, whole or in part; the first is line 4: 'loss=x' is no number"
    assert [each.message for each in caplog.records] == [said]


def test_a_value_that_is_no_number_in_a_column_of_numbers_is_counted_and_the_others_of_its_line_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,loss,lr,phase\n1,2.5,0.1,warm\n2,1e,0.2,warm\n3,None,0.3,train\n4,NaN,0.4,train\n5,2.1,x,\n")
    (run,) = runs_in(path)
    rows = list(run.rows())
    assert [sorted(row.values) for row in rows] == [["loss", "lr"], ["lr"], ["lr"], ["loss", "lr"], ["loss"]]
    said = f"{path}: 2 lines were left out, whole or in part; the first is line 3: 'loss=1e' is no number"
    assert [each.message for each in caplog.records] == [said]
