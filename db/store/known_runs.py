"""Cache of what was read of runs: a run is read again only when its revision has risen."""

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

MAX_RUNS = 5_000
"""Maximum number of runs; beyond it, those that were asked for longest ago are forgotten."""

Value = TypeVar("Value")


class RevisedRun(Protocol):
    """A row of `runs`, or these columns of it."""

    @property
    def pk(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def revision(self) -> int: ...


Identity = tuple[int, str, float]
"""Key, id and start of a run: a key is used again after a run was deleted, and so may its id be."""


class KnownRuns(Generic[Value]):
    """A value for each of some runs. Several threads may use it."""

    def __init__(self, max_runs: int = MAX_RUNS) -> None:
        self._lock = threading.Lock()
        self._max_runs = max_runs
        self._known: OrderedDict[Identity, tuple[int, Value]] = OrderedDict()

    def current(self, run: RevisedRun) -> Value | None:
        """Return what is known of the run at its revision; None where it has to be read."""
        with self._lock:
            revision, value = self._known.get(_identity(run), (None, None))
            if value is None:
                return None
            self._known.move_to_end(_identity(run))
            return value if revision == run.revision else None

    def earlier(self, run: RevisedRun) -> Value | None:
        """Return what is known of the run at any revision."""
        with self._lock:
            return self._known.get(_identity(run), (None, None))[1]

    def keep(self, run: RevisedRun, value: Value) -> None:
        """Keep what was read of the run at its revision."""
        with self._lock:
            self._known[_identity(run)] = run.revision, value
            self._known.move_to_end(_identity(run))
            while len(self._known) > self._max_runs:
                self._known.popitem(last=False)


def _identity(run: RevisedRun) -> Identity:
    return run.pk, run.id, run.started_at
