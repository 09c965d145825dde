"""Stored rows as the API returns them: JSON-able, with non-finite numbers encoded."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from db.goodput import rollback_costs
from db.goodput.rollback_costs import Rewind
from db.lineage import live_line
from db.models import INNER_COLUMNS, Audit, Event, Incident, Intervention, Order, Run, Segment, SkippedBatches
from db.records.arms import TriedArm
from db.records.step_notes import StepNote
from db.runs.overview import Standing, Tally
from db.runs.verdicts import Verdict
from db.steps.step_times import StoredStep
from lossguard.vocabulary.protocol import encode_number
from lossguard.vocabulary.run_search import tags_of
from monitor.detection.interventions import run_policy

Stored = Run | Segment | Incident | Intervention | Order | SkippedBatches | Event | Audit | StepNote | TriedArm

HIDDEN = frozenset({"pk", "run_pk", "revision", "lease_writer", "lease_session", *INNER_COLUMNS})


def record(row: Stored, fields: Sequence[str] | None = None) -> dict[str, Any]:
    """Every column of a stored row, without those that only the store needs and those that a trainer has to prove.

    `fields`: only these.
    """
    return {name: getattr(row, name) for name in (columns(type(row)) if fields is None else fields)}


def columns(table: type[Stored]) -> list[str]:
    """The names of the columns of a table that are shown."""
    hidden = HIDDEN | ({"key", "signature"} if issubclass(table, Order) else set())
    return [column.key for column in table.__table__.columns if column.key not in hidden]


def segments(rows: Sequence[Segment]) -> list[dict[str, Any]]:
    """The tree. The steps [live_from, live_to) of a segment are on the live line; live_to null: to its end."""
    line = {step_range.segment: step_range for step_range in live_line(rows)}
    shown = []
    for row in rows:
        part = line.get(row.number)
        live = {"live_from": None, "live_to": None} if part is None else {"live_from": part.first, "live_to": part.last}
        shown.append(record(row) | live)
    return shown


RUN_FIELDS = frozenset(columns(Run))


def run(row: Run, fields: Sequence[str] | None = None) -> dict[str, Any]:
    """A run with its complete policy, or these fields of it alone."""
    shown = record(row, fields)
    if "policy" in shown:
        shown["policy"] = run_policy.to_rule(run_policy.policy_of(row.policy), run_policy.settings_of(row.policy))
    return shown


JUDGED = ("verdict", "sentence")
STANDING_FIELDS = (
    *("id", "project", "name", "state", "note", "total_steps", *JUDGED),
    *("started_at", "last_report_at", "finished_at", "archived_at"),
    *("tags", "step", "metrics", "open_incidents", "waiting", "config"),
)
"""Fields of a run in a list; the last one is shown if it is asked for."""
OTHER_COLUMNS: Mapping[str, Collection[str]] = {
    "tags": ("tags", "config"),
    **dict.fromkeys(JUDGED, ("state", "started_at", "last_report_at", "capabilities", "restorable_steps")),
    **dict.fromkeys(("step", "metrics", "open_incidents", "waiting"), ()),
}
"""Field -> the columns of a run that it shows, where it is not the column of its name."""


def columns_of_standing(fields: Sequence[str]) -> set[str]:
    """The columns of a run that these fields of a list show."""
    return {column for name in fields for column in OTHER_COLUMNS.get(name, (name,))}


def standing(row: Run, newest: Standing, tally: Tally, judged: Verdict | None, fields: Sequence[str]) -> dict[str, Any]:
    """Return a run of a list with its progress and open items. `judged`: None where no field asks for it."""
    values: dict[str, Callable[[], Any]] = {
        "tags": lambda: tags_of(row.tags, row.config),
        "step": lambda: newest.step,
        "metrics": lambda: dict(newest.metrics),
        "open_incidents": lambda: tally.open_incidents,
        "waiting": lambda: tally.waiting,
        "verdict": lambda: judged and judged.verdict,
        "sentence": lambda: judged and judged.sentence,
    }
    return {name: values[name]() if name in values else getattr(row, name) for name in fields}


def step(row: StoredStep | None, names: list[str]) -> dict[str, Any] | None:
    """The metrics of one step."""
    if row is None:
        return None
    values = {name: encode_number(row.metrics.get(name)) for name in names}
    return {"step": row.step, "segment": row.segment, "time": row.time, "metrics": values}


def costs(rewinds: Sequence[Rewind]) -> dict[str, Any]:
    """Return the costs of the rewinds of a run. In `seconds`, time that two share counts once; null: not known."""
    tokens = [rewind.tokens for rewind in rewinds if rewind.tokens is not None]
    return {
        "steps": sum(rewind.steps for rewind in rewinds),
        "tokens": sum(tokens) if tokens or not rewinds else None,
        "seconds": rollback_costs.total_seconds(rewinds),
        "rewinds": [{name: getattr(rewind, name) for name in REWIND} for rewind in rewinds],
    }


REWIND = ("segment", "reason", "fork_step", "incident", "steps", "tokens", "seconds", "first_done_at", "done_again_at")
