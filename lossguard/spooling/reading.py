"""What a run recorded, read from its spools."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossguard.spooling.spool import spools_in


def read_spools(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(session, record) of each line of a run's spools, in the order of writing; `directory` is `run.directory`.

    A record has one of the keys "run" (the registration), "segment" (a segment was opened), "metrics" (a step; see
    `decode_number`), "event", "restorable", "answer" (to an order) and "finish". Truncated and damaged lines are left
    out.
    """
    for path in spools_in(directory):
        with path.open("rb") as spool:
            for line in spool:
                if line.endswith(b"\n"):
                    with suppress(ValueError, TypeError):
                        yield path.stem, dict(json.loads(line))
