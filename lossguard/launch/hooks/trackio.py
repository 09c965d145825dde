"""The hook on trackio: `Run.log`, through which `trackio.log` goes."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from .journal import Journal
from .tracker_log import TrackerLog, numbers, whole, wrap


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap `Run.log`."""
    log = TrackerLog("trackio", journal)
    next_steps: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # of each run, as trackio counts

    def record(run: Any, metrics: Any, step: Any = None, *_: Any, **__: Any) -> None:
        if not isinstance(metrics, Mapping) or not journal.is_written:
            return
        if run not in next_steps:
            next_steps[run] = int(getattr(run, "_next_step", 0) or 0)
            config = {name: value for name, value in (run.config or {}).items() if not str(name).startswith("_")}
            log.describe(project=run.project, name=run.name, config=config or None)
        given = None if step is None else whole(step)
        at = next_steps[run] if given is None else given
        next_steps[run] = max(next_steps[run], at + 1)
        if scalars := numbers(metrics):
            log.scalars(at, scalars, complete=step is None)

    wrap(module.Run, "log", record)
