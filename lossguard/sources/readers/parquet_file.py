"""Parquet files, read with pyarrow some rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from lossguard.sources.readers.line_format import files_in
from lossguard.sources.source_run import BadSource

SUFFIXES = (".parquet",)
MAGIC = b"PAR1"
BATCH_ROWS = 10_000


def parquet_files_in(path: Path) -> list[Path]:
    """The Parquet files at or below `path`."""
    return [file for file in files_in(path, SUFFIXES) if _has_magic(file)]


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
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield batch.to_pydict()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        module = import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadSource(f"Parquet files need the package pyarrow ({error}): pip install pyarrow") from None
    try:
        with module.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError) as error:
        raise BadSource(f"{path} cannot be read as a Parquet file ({error})") from None


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
