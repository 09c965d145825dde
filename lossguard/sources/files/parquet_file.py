"""Parquet files, read with pyarrow some rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from lossguard.sources.files.line_format import files_in, has_magic
from lossguard.sources.source_run import MAX_ROWS, BadSource, needed

SUFFIXES = (".parquet",)
MAGIC = b"PAR1"
BATCH_ROWS, BATCH_VALUES = 10_000, 500_000
"""Maximum rows, and values, that are in memory at a time."""


def parquet_files_in(path: Path) -> list[Path]:
    """The Parquet files at or below `path`."""
    return [file for file in files_in(path, SUFFIXES) if has_magic(file, MAGIC)]


def column_names(path: Path) -> list[str]:
    """Raises BadSource where the file cannot be read, or without pyarrow."""
    with _opened(path) as parquet:
        return list(parquet.schema_arrow.names)


def num_rows(path: Path) -> int:
    with _opened(path) as parquet:
        return int(parquet.metadata.num_rows)


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, list[Any]]]:
    """Column -> values as Python objects, for some rows at a time. Empty cells are None, NaN is NaN."""
    with _opened(path) as parquet:
        num_rows, num_bytes = parquet.metadata.num_rows, path.stat().st_size
        if num_rows > max(MAX_ROWS, num_bytes):  # a column of equal values takes no bytes
            raise BadSource(f"{path} has {num_rows:,} rows in {num_bytes:,} bytes, so it is no log of a training")
        num_columns = len(parquet.schema_arrow.names if columns is None else columns)
        rows = max(1, min(BATCH_ROWS, BATCH_VALUES // max(1, num_columns)))
        for batch in parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False):
            yield batch.to_pydict()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    module = needed("pyarrow.parquet", "pyarrow", "Parquet files")
    pyarrow = import_module("pyarrow")
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # others reserve 1 GiB, which counts against the limit
    try:
        with module.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError) as error:
        raise BadSource(f"{path} cannot be read as a Parquet file ({error})") from None
