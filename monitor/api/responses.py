"""Stored rows as the API returns them: JSON-able, with non-finite numbers encoded."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from db.goodput import rollback_costs
from db.goodput.accounting import Breakdown
from db.goodput.rollback_costs import Rewind
from db.hardware import HardwareSample
from db.lineage import live_line, source_of
from db.models import Audit, Event, Incident, Intervention, Order, Run, Segment, SkippedBatches
from db.overview import Standing, Tally
from db.queries import Series
from db.step_notes import StepNote
from db.steps.newest import StoredStep
from lossguard.protocol import encode_number
from lossguard.run_tags import tags_of
from monitor.detection.interventions import run_policy

Stored = Run | Segment | Incident | Intervention | Order | SkippedBatches | Event | Audit | StepNote

HIDDEN = frozenset({"pk", "run_pk", "revision", "lease_writer", "lease_session"})


def record(row: Stored) -> dict[str, Any]:
    """Every column of a stored row, without those that only the store needs and those that a trainer has to prove."""
    hidden = HIDDEN | ({"key", "signature"} if isinstance(row, Order) else set())
    names = [column.key for column in row.__table__.columns if column.key not in hidden]
    return {name: getattr(row, name) for name in names}


def segments(rows: Sequence[Segment]) -> list[dict[str, Any]]:
    """The tree. The steps [live_from, live_to) of a segment are on the live line; live_to null: to its end."""
    line = {step_range.segment: step_range for step_range in live_line(rows)}
    shown = []
    for row in rows:
        part = line.get(row.number)
        live = {"live_from": None, "live_to": None} if part is None else {"live_from": part.first, "live_to": part.last}
        shown.append(record(row) | live)
    return shown


def run(row: Run) -> dict[str, Any]:
    """A run with its complete policy."""
    return record(row) | {
        "policy": run_policy.to_rule(run_policy.policy_of(row.policy), run_policy.settings_of(row.policy))
    }


LISTED = ("id", "project", "name", "state", "note", "total_steps")
LISTED_TIMES = ("started_at", "last_report_at", "finished_at", "archived_at")


def standing(row: Run, newest: Standing, tally: Tally, *, with_config: bool) -> dict[str, Any]:
    """A run in a list: where it stands, and how much of it is open."""
    shown = {name: getattr(row, name) for name in (*LISTED, *LISTED_TIMES)}
    shown |= {"tags": tags_of(row.tags, row.config), "step": newest.step, "metrics": dict(newest.metrics)}
    shown |= {"open_incidents": tally.open_incidents, "waiting": tally.waiting}
    return shown | ({"config": row.config} if with_config else {})


def step(row: StoredStep | None, names: list[str]) -> dict[str, Any] | None:
    """The metrics of one step."""
    if row is None:
        return None
    values = {name: encode_number(row.metrics.get(name)) for name in names}
    return {"step": row.step, "segment": row.segment, "time": row.time, "metrics": values}


def source(events: Sequence[Event]) -> dict[str, Any]:
    """How the rows of a run are made, and one sentence for each way in which that matters."""
    facts = source_of(events)
    return facts.to_details() | {"sentences": facts.describe()}


def goodput(found: Breakdown) -> dict[str, Any]:
    """The time of a run by cause; `goodput` is null while no time has passed."""
    return {"goodput": found.goodput, "total_seconds": found.total, "seconds": dict(found.seconds)}


def costs(rewinds: Sequence[Rewind]) -> dict[str, Any]:
    """What the rewinds of a run cost. In `seconds`, time that two of them share counts once; null where not known."""
    tokens = [rewind.tokens for rewind in rewinds if rewind.tokens is not None]
    return {
        "steps": sum(rewind.steps for rewind in rewinds),
        "tokens": sum(tokens) if tokens or not rewinds else None,
        "seconds": rollback_costs.total_seconds(rewinds),
        "rewinds": [_rewind(rewind) for rewind in rewinds],
    }


def _rewind(rewind: Rewind) -> dict[str, Any]:
    names = ("segment", "reason", "fork_step", "incident", "steps", "tokens", "seconds")
    return {name: getattr(rewind, name) for name in (*names, "first_done_at", "done_again_at")}


def hardware(sample: HardwareSample) -> dict[str, Any]:
    """A sample of the hardware."""
    named = {name: getattr(sample, name) for name in ("time", "step", "host", "device", "num_errors")}
    return named | {"values": sample.readings}


def series(columns: Series) -> dict[str, Any]:
    """A metric over steps, in columns."""
    return asdict(columns)
