"""A run as both of MLflow's stores keep it: params, tags, times in milliseconds, a state."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lossguard.sources.configured import facts_of
from lossguard.sources.facts import SourceFacts
from lossguard.sources.rows import Row
from lossguard.sources.source_run import SourceRun
from lossguard.states import RunState

STATES = {"FINISHED": RunState.FINISHED, "FAILED": RunState.FAILED}
"""Any other run was stopped, or still runs."""
OWN_TAGS = "mlflow."


def facts_in(params: Mapping[str, Any]) -> SourceFacts:
    """What the params say about how the rows were made. MLflow keeps them as text."""
    return facts_of({name: _value(str(text)) for name, text in params.items()})


def _value(text: str) -> Any:
    return {"True": True, "False": False}.get(text, int(text) if text.isdecimal() and len(text) < 10 else text)


def described(
    *,
    run_id: str,
    name: str | None,
    experiment: str | None,
    status: str,
    started_at: int | None,
    ended_at: int | None,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    place: str,
    rows: Callable[[], Iterator[Row]],
    size: int | None = None,
) -> SourceRun:
    """`started_at`, `ended_at`: unix milliseconds."""
    return SourceRun(
        format="mlflow",
        identity=run_id,
        name=name or tags.get("mlflow.runName") or run_id,
        place=f"{place}, run {run_id}",
        rows=rows,
        project=experiment,
        config=params,
        tags=[f"{key}={value}" for key, value in tags.items() if not key.startswith(OWN_TAGS)],
        started_at=started_at / 1000 if started_at else None,
        ended_at=ended_at / 1000 if ended_at else None,
        state=STATES.get(status, RunState.INTERRUPTED),
        command=tags.get("mlflow.source.name"),
        git_commit=tags.get("mlflow.source.git.commit"),
        facts=facts_in(params),
        size=size,
    )
