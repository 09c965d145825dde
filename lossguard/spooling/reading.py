"""What a run recorded, read from its spools."""

import gzip
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from lossguard.spooling.archive import control_lines, files_in
from lossguard.spooling.lines import DamagedLine, Record, from_line, has_checksum
from lossguard.spooling.spool import session_of
from lossguard.spooling.spool_reader import SpoolReader


def read_spools(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(session, record) of each line of a run's spools, in the order of writing; `directory` is `run.directory`.

    A record has one of the keys "run" (the registration), "segment" (a segment was opened), "metrics" (a step; see
    `decode_number`), "event", "restorable", "answer" (to an order) and "finish". Truncated and damaged lines are left
    out. Of files that were trimmed to the lines that a resumed run needs, the others are missing.
    """
    for path in files_in(directory, ".spool", ".spool.gz", ".control"):
        session, _ = session_of(path)
        for record in _records(path):
            if "repeated" not in record:
                yield session, record


def _records(path: Path) -> Iterator[Record]:
    if path.suffix == ".gz":
        yield from _compressed_records(path)
        return
    try:
        reader = SpoolReader(path)
    except FileNotFoundError:  # archived since it was listed
        compressed = path.with_suffix(".spool.gz")
        if compressed.exists():
            yield from _compressed_records(compressed)
            return
        reader = control_lines(path)
    with reader:
        for _, record in reader.records():
            yield record


def _compressed_records(path: Path) -> Iterator[Record]:
    with gzip.open(path) as file:
        first = file.readline()
        checksums = has_checksum(first)
        for line in chain([first], file):
            with suppress(DamagedLine):
                yield from_line(line, checksums=checksums)
