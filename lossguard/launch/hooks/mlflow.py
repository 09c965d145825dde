"""The hook on MlflowClient, through which `mlflow.log_metric(s)`, autologging and the loggers of frameworks go."""

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .journal import Journal
from .tracker_log import TrackerLog, number, observed, whole, wrap

SYSTEM_METRICS = "system/"
"""Prefix of the names under which MLflow logs the hardware, numbered by its own samples."""

_experiments: dict[str, str] = {}
"""Id -> name, as far as this process has asked for them."""


class _LoggedRuns:
    """The runs of MLflow that this process logs."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._log = TrackerLog("mlflow", journal)
        self._last_steps: dict[str, int] = {}  # of each name
        self._newest_step = 0
        self._params: dict[str, Any] = {}
        self._facts: dict[str, Any] = {"project": os.environ.get("MLFLOW_EXPERIMENT_NAME") or None}
        self._has_metrics = False

    def metrics(self, metrics: Iterable[tuple[str, Any, Any]]) -> None:
        """(name, value, step) of metrics that are logged together."""
        by_step: dict[int, dict[str, float]] = {}
        for name, value, step in metrics:
            scalar = number(value)
            if scalar is not None:
                by_step.setdefault(self._step_of(name, step), {})[name] = scalar
        if by_step and self._journal.is_written:
            if not self._has_metrics:
                self._has_metrics = True
                self._describe()
            for step, values in by_step.items():
                self._log.scalars(step, values)

    def created(self, run: Any, *_: Any, **__: Any) -> None:
        """A run was begun."""
        self._facts["name"] = getattr(run.info, "run_name", None)
        self._facts["project"] = _experiments.get(str(run.info.experiment_id)) or self._facts["project"]

    def params(self, params: dict[str, Any]) -> None:
        """Parameters of a run, which are its configuration."""
        self._params |= params
        if self._has_metrics:
            self._describe()

    def _step_of(self, name: str, step: Any) -> int:
        """MLflow writes metrics that come without a step at step 0: they are counted. Its system metrics go with the
        newest step of the others."""
        if name.startswith(SYSTEM_METRICS):
            return self._newest_step
        at = (whole(step) if step is not None else 0) or self._log.count(name)
        if goes_back := at < self._last_steps.get(name, 0):
            self._last_steps.clear()
        self._newest_step = at if goes_back else max(self._newest_step, at)
        self._last_steps[name] = at
        return at

    def _describe(self) -> None:
        self._log.describe(**self._facts, config=dict(self._params) or None)


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap the methods of MlflowClient that log and begin runs; those of the client below it name experiments."""
    if module.__name__.endswith("_tracking_service.client"):
        _hook_experiments(module.TrackingServiceClient)
        return
    client = module.MlflowClient
    runs = _LoggedRuns(journal)

    def log_metric(
        self: Any, run_id: str, key: str, value: Any, timestamp: Any = None, step: Any = None, *_: Any, **__: Any
    ) -> None:
        runs.metrics([(key, value, step)])

    def log_batch(
        self: Any, run_id: str, metrics: Iterable[Any] = (), params: Iterable[Any] = (), *_: Any, **__: Any
    ) -> None:
        runs.metrics((metric.key, metric.value, metric.step) for metric in metrics)
        if values := {param.key: param.value for param in params}:
            runs.params(values)

    def log_param(self: Any, run_id: str, key: str, value: Any, *_: Any, **__: Any) -> None:
        runs.params({key: value})

    wrap(client, "log_metric", log_metric)
    wrap(client, "log_batch", log_batch)
    wrap(client, "log_param", log_param)
    _observe(client, "create_run", runs.created)


def _hook_experiments(client: type) -> None:
    def created(result: Any, self: Any, name: str, *_: Any, **__: Any) -> None:
        _experiments[str(result)] = name

    def found(result: Any, *_: Any, **__: Any) -> None:
        if result is not None:
            _experiments[str(result.experiment_id)] = result.name

    _observe(client, "create_experiment", created)
    _observe(client, "get_experiment_by_name", found)
    _observe(client, "get_experiment", found)


def _observe(client: Any, name: str, see: Any) -> None:
    """Show `see` what the method returns and got; a version without it leaves the run without that name."""
    if hasattr(client, name):
        setattr(client, name, observed(getattr(client, name), see))
