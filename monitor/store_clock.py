"""The clock that several collectors of one store agree on: that of the database."""

import time
from collections.abc import Callable

MIN_OFFSET = 1.0
"""Seconds by which the clocks must differ to be corrected; asking the database takes time, too."""


class StoreClock:
    """Clock of this machine, corrected by the difference to the database's clock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self.offset = clock, 0.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self._clock() + self.offset

    def observe(self, database: float, own: float) -> None:
        """The clock of the database read `database` when this machine's read `own`."""
        offset = database - own
        self.offset = offset if abs(offset) >= MIN_OFFSET else 0.0
