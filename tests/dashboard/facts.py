"""Facts of a run with hardly any data, made without a store."""

from typing import Any

from dashboard.data.facts import RunFacts, StepProgress
from db.models import Run
from db.runs.verdicts import Verdict
from lossguard.vocabulary.states import RunVerdict


def facts_of(run: Run, **known: Any) -> RunFacts:
    """`known`: of its facts, what is not empty."""
    empty: dict[str, Any] = {
        name: [] for name in ("segments", "incidents", "interventions", "ledger", "events", "metrics")
    }
    usual: dict[str, Any] = {
        "orders": {}, "newest": {}, "mfu": None, "layers": {}, "progress": StepProgress(0, None, None),
        "verdict": Verdict(RunVerdict.HEALTHY, "Healthy: no step yet"),
    }  # fmt: skip
    return RunFacts(run=run, **(empty | usual | known))
