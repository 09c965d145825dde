"""What a run recorded, read from its spools."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossguard.spooling.spool import spools_in
from lossguard.spooling.spool_reader import SpoolReader


def read_spools(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(session, record) of each line of a run's spools, in the order of writing; `directory` is `run.directory`.

    A record has one of the keys "run" (the registration), "segment" (a segment was opened), "metrics" (a step; see
    `decode_number`), "event", "restorable", "answer" (to an order) and "finish". Truncated and damaged lines are left
    out.
    """
    for path in spools_in(directory):
        with SpoolReader(path) as reader:
            for _, record in reader.records():
                yield path.stem, record
