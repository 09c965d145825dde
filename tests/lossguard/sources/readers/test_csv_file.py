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
