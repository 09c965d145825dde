"""The hook on wandb: `Run.log`, with its rules for the step, whatever the mode of the run."""

import functools
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary, ref

from .journal import Journal, warn_once
from .tracker_log import TrackerLog, numbers, observed, recording, whole, wrap

STEP_NAMES = ("global_step", "step", "iteration", "iter", "iter_num", "num_updates", "optimizer_step", "train_step")
"""Last parts of names that hold the step, as in train/global_step (Hugging Face) and trainer/global_step (Lightning):
without `step=` wandb counts calls of `log`. The first one in this order counts."""
DESCRIBE_SECONDS = 5.0
"""Seconds after which a call of `log` looks for changes of the configuration."""


class _LoggedRun:
    """One run of wandb."""

    def __init__(self, run: Any, journal: Journal, log: TrackerLog) -> None:
        self._run = ref(run)
        self._journal = journal
        self._log = log
        self._step = int(getattr(run, "starting_step", 0) or 0)  # as wandb counts
        self._last_named_step = -1
        self._names_steps = True  # values under STEP_NAMES are taken as the step
        self._step_names: dict[tuple[Any, ...], str | None] = {}  # of the names that were logged together
        self._described: dict[str, Any] = {}
        self._describe_at = 0.0

    def log(self, data: Any, step: Any = None, commit: bool | None = None) -> None:
        if not self._journal.is_written or not (type(data) is dict or isinstance(data, Mapping)):
            return
        now = time.monotonic()
        if now >= self._describe_at:
            self._describe_at = now + DESCRIBE_SECONDS
            self._describe()
        at = None if step is None else whole(step)
        values = data
        if at is None:
            at, values = self._named_step(data)
        elif at > self._step:
            self._step = at
        if at is None:
            at = self._step
        is_complete = bool(commit) or (step is None and commit is None)
        self._step += is_complete
        if scalars := numbers(values):
            self._log.scalars(at, scalars, complete=is_complete)

    def _named_step(self, data: Mapping[Any, Any]) -> tuple[int | None, Mapping[Any, Any]]:
        """The step among the values, and the other values."""
        names = tuple(data)
        if names not in self._step_names:
            by_end = {str(name).lower().rpartition("/")[2]: name for name in reversed(names)}
            self._step_names[names] = next((by_end[end] for end in STEP_NAMES if end in by_end), None)
        name = self._step_names[names]
        step = whole(data[name]) if name is not None and self._names_steps else None
        if step is None:
            return None, data
        if step < self._last_named_step:  # it counts within an epoch
            self._names_steps = False
            self._step = max(self._step, self._last_named_step + 1)
            return None, data
        self._last_named_step = step
        return step, {each: value for each, value in data.items() if each != name}

    def _describe(self) -> None:
        run: Any = self._run()
        facts = {
            "project": _text(run, "project"),
            "name": _text(run, "name"),
            "config": dict(run.config),
            "tags": list(getattr(run, "tags", None) or ()) or None,
        }
        if facts != self._described:
            self._described = facts
            self._log.describe(**facts)


def _text(run: Any, name: str) -> str | None:
    """A name that the user has given; wandb invents some for a run that is disabled or has no project."""
    value = getattr(run, name, None)
    is_given = isinstance(value, str) and value not in ("", "dummy", "uncategorized") and not value.startswith("dummy-")
    return value if is_given else None


_runs: WeakKeyDictionary[Any, _LoggedRun] = WeakKeyDictionary()


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap `log` of the classes of runs that `module` defines; runs whose `log` is their own are wrapped by `init`."""
    log = TrackerLog("wandb", journal)
    newest: tuple[Any, _LoggedRun | None] = (lambda: None, None)

    def record(run: Any, data: Any = None, step: Any = None, commit: bool | None = None, *_: Any, **__: Any) -> None:
        nonlocal newest
        known, logged = newest
        if logged is None or known() is not run:
            logged = _runs.get(run)
            if logged is None:
                logged = _runs[run] = _LoggedRun(run, journal, log)
            newest = ref(run), logged
        logged.log(data, step, commit)

    if module.__name__.endswith("wandb_init"):
        _hook_runs_of_their_own(module, record)
    else:
        wrap(module.NoopRun if module.__name__.endswith("noop_run") else module.Run, "log", record)


def _hook_runs_of_their_own(module: ModuleType, record: Any) -> None:
    """Disabled runs of earlier versions (0.13 to 0.21) have a `log` of the object's own."""

    def begun(run: Any, *_: Any, **__: Any) -> None:
        try:
            own = vars(run).get("log")
            if own is not None:
                run.log = recording(own, functools.partial(record, run))
                if getattr(module.wandb, "log", None) is own:
                    module.wandb.log = run.log
        except Exception as problem:
            warn_once(f"a run of wandb cannot be hooked ({type(problem).__name__}: {problem}): it is not recorded")

    module.init = observed(module.init, begun)  # type: ignore[attr-defined]
