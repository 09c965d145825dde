"""A store of many runs without steps, for measurements of lists: written in bulk, ten thousand in seconds."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Incident, Intervention, Metric, Run, RunStatus, Segment, SkippedBatches
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from monitor.ingestion import run_status

RUNS_PER_COMMIT = 2_000
REPORTED_STEPS = 8
"""Steps of each of the last reports."""


def fill(engine: sa.Engine, count: int, *, live: int = 1) -> None:
    """Runs of a sweep, the `live` newest ones still running, each with two segments and a few incidents."""
    for start in range(0, count, RUNS_PER_COMMIT):
        numbers = range(start, min(count, start + RUNS_PER_COMMIT))
        with writing(engine) as session:
            _add(session, numbers, count=count, live=live)


def report(engine: sa.Engine) -> None:
    """Every live run has reported since: none of its lines in /metrics are as they were."""
    now = time.time()
    with writing(engine) as session:
        is_live = Run.state == RunState.RUNNING
        pks = session.scalars(sa.select(RunStatus.run_pk).join(Run, Run.pk == RunStatus.run_pk).where(is_live)).all()
        changed = {"last_report_at": now, "revision": Run.revision + 1}
        session.execute(sa.update(Run).where(is_live).values(changed).execution_options(synchronize_session=False))
        session.execute(sa.update(RunStatus), [_reported(number, pk, now) for number, pk in enumerate(pks)])


def _reported(number: int, pk: int, now: float) -> dict[str, Any]:
    status = _status(number, pk, now)
    values = {name: value + now % 1 for name, value in status["latest_values"].items()}
    return {name: status[name] for name in ("run_pk", "last_step_at", "peaks", "recent_reports")} | {
        "step": int(now) % 10**6,
        "latest_values": values,
    }


def _add(session: Session, numbers: Sequence[int], *, count: int, live: int) -> None:
    now = time.time()
    session.execute(sa.insert(Run), [_run(number, count, live, now) for number in numbers])
    found = session.execute(sa.select(Run.id, Run.pk).where(Run.id.in_([_id(number) for number in numbers])))
    pks = {run_id: pk for run_id, pk in found}
    keys = [(number, pks[_id(number)]) for number in numbers]
    session.execute(sa.insert(RunStatus), [_status(number, pk, now) for number, pk in keys])
    names = enumerate(run_status.GAUGES)
    metrics = [{"number": number, "name": name} for number, name in names]
    session.execute(sa.insert(Metric), [{"run_pk": pk, **each} for _, pk in keys for each in metrics])
    session.execute(sa.insert(Segment), [row for _, pk in keys for row in _segments(pk, now)])
    session.execute(sa.insert(Incident), [row for number, pk in keys for row in _incidents(number, pk, now)])
    session.execute(sa.insert(Intervention), [row for _, pk in keys for row in _interventions(pk, now)])
    skipped = {"skip_from": 10, "skip_to": 20, "reason": "rollback", "created_at": now}
    session.execute(sa.insert(SkippedBatches), [{"run_pk": pk, **skipped} for _, pk in keys])


def _id(number: int) -> str:
    return f"run-{number:06d}"


def _run(number: int, count: int, live: int, now: float) -> dict[str, Any]:
    is_live, started = number >= count - live, now - 3600.0 * (count - number)
    optimizer = {"lr": 10.0 ** -(number % 5), "betas": [0.9, 0.95], "name": "adamw", "weight_decay": 0.1}
    model = {f"size_{name}": number % 7 for name in range(15)} | {"width": 512 * (1 + number % 3)}
    config = {"optimizer": optimizer, "model": model, "seed": number // 5, "tags": ["sweep", f"set-{number % 20}"]}
    return {
        "id": _id(number), "project": f"project-{number % 12}", "name": f"sweep {number}", "config": config,
        "state": RunState.RUNNING if is_live else RunState.FINISHED, "host": f"node-{number % 50}",
        "command": "python train.py --config sweep.yaml", "git_commit": "0" * 40, "devices": ["NVIDIA H100"] * 8,
        "versions": {"python": "3.12", "torch": "2.9"}, "capabilities": ["rollback"], "restorable_steps": [],
        "total_steps": 200, "started_at": started, "last_report_at": now if is_live else started + 3000.0,
        "finished_at": None if is_live else started + 3000.0, "note": "looks odd" if number % 100 == 0 else None,
    }  # fmt: skip


def _status(number: int, pk: int, now: float) -> dict[str, Any]:
    values = {name: 2.0 + number % 100 / 50 for name in run_status.GAUGES}
    reports = [
        [now + 0.4 * step, step, 1000.0 * step, 0.4]
        for step in range(0, run_status.NUM_RATE_REPORTS * REPORTED_STEPS, REPORTED_STEPS)
    ]
    slot = int(now // run_status.SLOT_SECONDS)
    return {
        "run_pk": pk, "step": 199, "last_step_at": now, "nonfinite_steps": 0, "skipped_steps": 0,
        "latest_values": values,
        "peaks": [[slot, {name: 3.0 for name in ("loss", "grad_norm", "log_z")}]], "recent_reports": reports,
        "undelivered_bytes": 0, "report_gaps": [2.0] * run_status.NUM_GAPS,
    }  # fmt: skip


def _segments(pk: int, now: float) -> Iterator[dict[str, Any]]:
    for number, first, reason in ((0, 0, "start"), (1, 50, "rollback")):
        yield {
            "run_pk": pk, "number": number, "parent": number - 1 if number else None, "fork_step": first,
            "key": str(number), "reason": reason, "opened_at": now + number, "first_step": first,
            "last_step": first + 99, "num_steps": 100,
        }  # fmt: skip


def _incidents(number: int, pk: int, now: float) -> Iterator[dict[str, Any]]:
    states = ("closed", "closed", "open" if number % 50 == 0 else "closed")
    for place, state in enumerate(states, 1):
        yield {
            "run_pk": pk, "number": place, "segment": 0, "kind": "loss_spike", "state": state, "signal": "loss",
            "onset_step": 50, "detected_step": 51, "details": {}, "opened_at": now - 900, "changed_at": now - 900,
        }  # fmt: skip


def _interventions(pk: int, now: float) -> Iterator[dict[str, Any]]:
    for number, state in ((1, "verified"), (2, "applied")):
        yield {
            "run_pk": pk, "number": number, "incident": number, "kind": "rollback", "state": state, "attempt": 1,
            "rewind_to": 40, "details": {}, "created_at": now - 800, "changed_at": now - 800,
        }  # fmt: skip
