"""Answers to MLflow's clients: experiments, runs, values of metrics, and the filters of their searches.

Of filters there are those that its loggers use: equality of names, tags and params, joined by AND.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import MlflowExperiment, MlflowRun, Run
from db.steps.reader import read_blocks
from lossguard.vocabulary.protocol import encode_number
from monitor.ingestion.run_state.logged_run import LoggedMetric, LoggedRun
from monitor.ingestion.run_updates import RUN_NAME
from monitor.mlflow_schemas import STATES
from monitor.problems import Problem

STATUS = {state: status for status, state in STATES.items()}


def experiment(row: MlflowExperiment) -> dict[str, Any]:
    created = round(row.created_at * 1000)
    return {
        "experiment_id": str(row.id),
        "name": row.name,
        "artifact_location": f"mlflow-artifacts:/{row.id}",
        "lifecycle_stage": "active",
        "creation_time": created,
        "last_update_time": created,
        "tags": _pairs(row.tags),
    }


def run_info(run: Run, logged: MlflowRun) -> dict[str, Any]:
    info: dict[str, Any] = {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": logged.tags.get(RUN_NAME, run.name or ""),
        "experiment_id": str(logged.experiment),
        "user_id": logged.user,
        "status": STATUS[run.state],  # type: ignore[index]
        "start_time": round(run.started_at * 1000),
        "artifact_uri": f"mlflow-artifacts:/{logged.experiment}/{run.id}/artifacts",
        "lifecycle_stage": "active",
    }
    return info if run.finished_at is None else info | {"end_time": round(run.finished_at * 1000)}


def run(run: Run, logged: MlflowRun) -> dict[str, Any]:
    """A run with its last metrics, params, tags and data sets."""
    latest = logged.state.get("latest", {})
    metrics = [metric(key, value, time, step) for key, (value, time, step) in latest.items()]
    return {
        "info": run_info(run, logged),
        "data": {"metrics": metrics, "params": _pairs(logged.params), "tags": _pairs(logged.tags)},
        "inputs": {"dataset_inputs": logged.inputs},
    }


def metric(key: str, value: float | str | None, timestamp: int, step: int) -> dict[str, Any]:
    number = encode_number(value) if isinstance(value, float) else value
    return {"key": key, "value": number, "timestamp": timestamp, "step": step}


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def values(session: Session, run: Run, logged: MlflowRun, *, key: str) -> Iterator[LoggedMetric]:
    """Yield every value of a metric, from the stored steps and the open rows, in the order of segments and steps.

    Nothing for a key that was not logged. Steps are read only as far as values are taken.
    """
    known = LoggedRun.from_json(logged.state)
    latest = known.latest.get(key)
    if latest is None:
        return
    last: LoggedMetric | None = None
    for each in _found(session, run, known, key):
        if last is not None:
            yield last
        last = each
    if last is not None:  # its row has another time, or an older value that was logged for the same step
        yield latest if last.step == latest.step else last


def _found(session: Session, run: Run, known: LoggedRun, key: str) -> Iterator[LoggedMetric]:
    name = known.name_of(key)
    for segment in queries.segments(session, run=run):
        steps = StepRange(segment.number, 0, None)
        for block in read_blocks(session, run_pk=run.pk, step_range=steps, metrics=[name]):
            column = block.metrics[name]
            cells = [part[column.reported].tolist() for part in (column.values, block.times, block.steps)]
            for value, time, step in zip(*cells, strict=True):
                yield LoggedMetric(key, value, round(time * 1000), step)
    for row in known.rows.rows.values():
        if name in row.values:
            yield LoggedMetric(key, row.values[name], round(row.time * 1000), row.step)


_NAME = re.compile(r"""\s*(?:attributes?\.)?name\s*=\s*(['"])(?P<value>(?:(?!\1).)*)\1\s*""", re.DOTALL)
_TERM = re.compile(
    r"""\s*(?:(?P<kind>attributes?|tags?|params?|parameters?)\.)?(?P<key>[\w.]+|`[^`]+`|"[^"]+")\s*=\s*(['"])"""
    r"""(?P<value>(?:(?!\3).)*)\3\s*(?:$|\band\b)""",
    re.DOTALL | re.IGNORECASE,
)


def named(text: str) -> str | None:
    """The name that a filter of experiments asks for; None without a filter. Raises Problem for any other filter."""
    if not text.strip():
        return None
    match = _NAME.fullmatch(text)
    if match is None:
        raise _unsupported(text, "name = '..'")
    return match["value"]


Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RunSearch:
    """Names and values that a filter of runs asks for."""

    params: Pairs = field(default_factory=list)
    tags: Pairs = field(default_factory=list)
    attributes: Pairs = field(default_factory=list)

    def fits(self, run: Run, logged: MlflowRun) -> bool:
        info = run_info(run, logged)
        return all(info.get(name) == value for name, value in self.attributes)


def run_search(text: str) -> RunSearch:
    """Parse a filter of runs. Raises Problem for a filter with other comparisons."""
    wanted = RunSearch()
    of_kind = {"att": wanted.attributes, "tag": wanted.tags, "par": wanted.params}
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if term is None:
            raise _unsupported(text, "attributes.run_name = '..', tags.key = '..' and params.key = '..', joined by AND")
        kind = (term["kind"] or "attribute")[:3].lower()
        key = term["key"]
        of_kind[kind].append((key[1:-1] if key[0] in ("`", '"') else key, term["value"]))
        at = term.end()
    return wanted


_NEWEST_FIRST = re.compile(r"\s*(?:attributes?\.)?`?start_time`?\s+desc\s*", re.IGNORECASE)


def check_order(order_by: Sequence[str]) -> None:
    """Raise Problem for an order of runs that is not the newest first."""
    for term in order_by:
        if not _NEWEST_FIRST.fullmatch(term):
            detail = f"the collector does not know the order {term!r:.200}; it lists the newest first: start_time DESC"
            raise Problem(422, "the order is not supported", detail, ["body", "order_by"])


def _unsupported(text: str, supported: str) -> Problem:
    detail = f"the collector does not know the filter {text!r:.200}; it knows {supported}"
    return Problem(422, "the filter is not supported", detail, ["body", "filter"])
