"""Runs in a list, made without a store."""

import math
from typing import Any

from dashboard.data.run_list import ListedRun
from db.models import Run
from db.runs.overview import MetricSummary, RunSummary, Tally
from db.runs.verdicts import Verdict
from lossguard.vocabulary.run_search import flattened
from lossguard.vocabulary.states import RunVerdict

NOW = 10_000.0


def listed(
    name: str,
    *,
    tally: Tally | None = None,
    config: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    steps: int = 0,
    **values: Any,
) -> ListedRun:
    """`metrics`: their last values."""
    usual: dict[str, Any] = {
        "id": f"id-{name}", "project": "gpt", "name": name, "state": "finished", "host": "h1", "capabilities": [],
        "devices": ["NVIDIA H100"], "command": None, "started_at": 0.0, "last_report_at": NOW, "config": config or {},
    }  # fmt: skip
    run = Run(**(usual | values))
    summaries = {key: summary(value) for key, value in (metrics or {}).items()}
    verdict = Verdict(RunVerdict.ENDED, "Finished at step 2")
    return ListedRun(run, tally or Tally(), verdict, RunSummary(steps, steps, summaries), flattened(run.config))


def summary(last: float) -> MetricSummary:
    finite = last if math.isfinite(last) else None
    return MetricSummary(last, finite, finite, () if finite is None else (finite + 1, finite))
