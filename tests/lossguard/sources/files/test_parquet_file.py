"""A Parquet file may stand for far more than it has bytes."""

from pathlib import Path

import pytest

from lossguard.sources import formats
from lossguard.sources.files import parquet_file
from lossguard.sources.source_run import BadSource
from tests.lossguard.sources.readers import hostile


def test_many_rows_in_few_bytes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.parquet_file(tmp_path / "a.parquet", step=[1] * 100_000, loss=[1.0] * 100_000)
    monkeypatch.setattr(parquet_file, "MAX_ROWS", 50_000)
    with pytest.raises(BadSource, match=r"has 100,000 rows in [\d,]+ bytes, so it is no log of a training"):
        list(formats.runs_in(tmp_path)[0].rows())


def test_few_rows_of_many_columns_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.parquet_file(tmp_path / "a.parquet")
    monkeypatch.setattr(parquet_file, "BATCH_VALUES", 2)
    sizes = [len(batch["step"]) for batch in parquet_file.batches(tmp_path / "a.parquet")]
    assert sizes == [1] * len(hostile.STEPS)
