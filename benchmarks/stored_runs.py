"""Stores for measurements, written in seconds: one long run with its steps, and thousands of runs of a sweep."""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries, run_settings
from db.models import Base, Incident, Intervention, Metric, Run, RunStatus, Segment, SkippedBatches
from db.steps import writer
from db.steps.step_block import MetricColumn
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState, SegmentReason
from monitor.ingestion.run_state import run_status

METRICS = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")
"""Metrics of a report."""
POINTS = 1_500
"""Points of a chart."""
CHUNK, RUNS_PER_COMMIT = 20_000, 2_000
REPORTED_STEPS = 8
"""Steps of each of the last reports."""
SPIKE_LOSS = 25.0
"""Loss of an injected spike, far above that of all other steps."""
COPIED = ("steps", "step_blocks", "block_values", "rollups")
"""Tables whose rows all runs of a sweep share."""


def report(noise: random.Random, steps: range, *, segment: int = 0, more: Sequence[str] = ()) -> bytes:
    """The body of a report as the SDK sends it: a slowly falling loss with noise; `more`: custom metrics."""
    metrics = {
        "loss": [2.5 + 3 / (1 + step / 500) + noise.gauss(0, 0.02) for step in steps],
        "grad_norm": [0.5 + abs(noise.gauss(0, 0.05)) for _ in steps],
        "log_z": [1.0 + noise.gauss(0, 0.01) for _ in steps],
        "log_z_max": [2.0 + noise.random() for _ in steps],
        "z_loss": [1e-4 * noise.random() for _ in steps],
        "lr": [3e-4] * len(steps),
        "tokens": [(step + 1) * 8192 for step in steps],
        "step_seconds": [0.4 + noise.random() / 100 for _ in steps],
    }
    metrics |= {name: [noise.gauss(1, 0.1) for _ in steps] for name in more}
    times = [1.8e9 + 0.4 * step for step in steps]
    body = {"segment": segment, "steps": list(steps), "times": times, "metrics": metrics, "events": []}
    return json.dumps(body).encode()


def spikes(length: int, count: int = 20) -> list[int]:
    """Steps of the injected spikes of a long run."""
    return [int(step) for step in np.linspace(length // 50, length - 7, count)]


def write_long(
    engine: sa.Engine, name: str, length: int, metrics: Sequence[str] = ("loss", "lr"), *, chunk: int = CHUNK
) -> None:
    """Store a run of `length` steps that was rolled back from its middle, with injected spikes on its live line.

    `chunk`: steps of a transaction.
    """
    start, fork = time.time() - length, length // 2 - length // 7
    values: dict[str, object] = {"id": name, "project": "bench", "config": {"num_parameters": 124_000_000}}
    values |= {"devices": [], "versions": {}}
    values |= {"capabilities": [], "policy": None, "total_steps": length, "started_at": start}
    with writing(engine) as session:
        commands.register_run(session, values=values, now=start)
    for key, first, last, reason in (
        ("a", 0, length // 2, SegmentReason.START),
        ("b", fork, length, SegmentReason.ROLLBACK),
    ):
        noise = np.random.default_rng(first)
        for low in range(first, last, chunk):
            rows = np.arange(low, min(low + chunk, last))
            columns = _columns(rows, length, metrics, noise)
            with writing(engine) as session:
                run = queries.run_named(session, run_id=name)
                assert run is not None
                segment = commands.open_segment(
                    session, run=run, key=key, fork_step=first, reason=reason, order_id=None, opened_at=start + first
                )
                insert(session, segment, rows.tolist(), (start + rows).tolist(), columns)


def _columns(
    rows: np.ndarray, length: int, metrics: Sequence[str], noise: np.random.Generator
) -> dict[str, list[float | None]]:
    loss = 2.5 + 8 / np.sqrt(1 + rows / 100) + noise.normal(0, 0.03, len(rows))
    loss[np.isin(rows, spikes(length))] = SPIKE_LOSS
    known: dict[str, Any] = {
        "loss": loss.tolist(),
        "lr": (3e-4 * np.cos(rows / length)).tolist(),
        "tokens": ((rows + 1) * 500_000.0).tolist(),
        "held_out_loss": [one if row % 100 == 99 else None for row, one in zip(rows, loss.tolist(), strict=True)],
        "step_seconds": [1.0] * len(rows),
    }
    return {name: known.get(name) or np.exp(noise.normal(-0.7, 0.1, len(rows))).tolist() for name in metrics}


def insert(
    session: Session, segment: Segment, steps: Sequence[int], times: Sequence[float],
    columns: Mapping[str, Sequence[float | None]],
) -> None:  # fmt: skip
    metrics = {name: MetricColumn.of(column) for name, column in columns.items()}
    writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=metrics)


def read_loss(engine: sa.Engine, name: str, first: int | None = None, last: int | None = None) -> queries.Series:
    """The loss of the live line, as the dashboard reads it."""
    with reading(engine) as session:
        run = queries.run_named(session, run_id=name)
        assert run is not None
        live = queries.live(session, run=run)
        return queries.series(session, run=run, step_ranges=live, metric="loss", first=first, last=last, points=POINTS)


def write_many(engine: sa.Engine, count: int, *, live: int = 1, steps: int = 0, days_old: float = 0.0) -> None:
    """Store runs of a sweep, the `live` newest ones still running, each with two segments and a few incidents.

    `steps`: steps of each run, the same in all; `days_old`: days since the newest one started.
    """
    now = time.time() - 86_400 * days_old
    for start in range(0, count, RUNS_PER_COMMIT):
        numbers = range(start, min(count, start + RUNS_PER_COMMIT))
        with writing(engine) as session:
            _add(session, numbers, count=count, live=live, now=now)
    if steps:
        with writing(engine) as session:
            first, *others = session.scalars(sa.select(Run).order_by(Run.id)).all()
            at = np.arange(steps)
            loss = (2.1 + 3.4 * np.exp(-at / (steps / 5))).tolist()
            segment = queries.segments(session, run=first)[0]
            insert(session, segment, at.tolist(), at.tolist(), {"loss": loss, "grad_norm": loss})
            session.flush()
            for name in COPIED:
                _copy(session, Base.metadata.tables[name], first.pk, [run.pk for run in others])


def _copy(session: Session, table: sa.Table, pk: int, pks: Sequence[int]) -> None:
    others = [column for column in table.columns if column.name != "run_pk"]
    rows = sa.select(Run.pk, *others).join_from(Run, table, table.c.run_pk == pk).where(Run.pk.in_(pks))
    session.execute(sa.insert(table).from_select(["run_pk", *(column.name for column in others)], rows))


def let_all_report(engine: sa.Engine) -> None:
    """Let every live run have reported since: none of its lines in /metrics stay the same."""
    now = time.time()
    with writing(engine) as session:
        is_live = Run.state == RunState.RUNNING
        pks = session.scalars(sa.select(RunStatus.run_pk).join(Run, Run.pk == RunStatus.run_pk).where(is_live)).all()
        changed = {"last_report_at": now, "revision": Run.revision + 1}
        session.execute(sa.update(Run).where(is_live).values(changed).execution_options(synchronize_session=False))
        session.execute(sa.update(RunStatus), [_reported(number, pk, now) for number, pk in enumerate(pks)])


def _reported(number: int, pk: int, now: float) -> dict[str, Any]:
    status = _status(number, pk, now)
    kept = {name: status[name] for name in ("run_pk", "last_step_at", "peaks", "recent_reports")}
    values = {name: value + now % 1 for name, value in status["latest_values"].items()}
    return kept | {"step": int(now) % 10**6, "latest_values": values}


def _add(session: Session, numbers: Sequence[int], *, count: int, live: int, now: float) -> None:
    runs = [_run(number, count, live, now) for number in numbers]
    session.execute(sa.insert(Run), runs)
    ids = {run["id"]: number for run, number in zip(runs, numbers, strict=True)}
    keys = [(ids[name], pk) for name, pk in session.execute(sa.select(Run.id, Run.pk).where(Run.id.in_(ids)))]
    run_settings.save(session, *session.scalars(sa.select(Run).where(Run.id.in_(ids))))
    metrics = [{"number": number, "name": name} for number, name in enumerate(run_status.GAUGES)]
    skipped = {"skip_from": 10, "skip_to": 20, "reason": "rollback", "created_at": now}
    rows: tuple[tuple[type[Base], list[dict[str, Any]]], ...] = (
        (RunStatus, [_status(number, pk, now) for number, pk in keys]),
        (Metric, [{"run_pk": pk, **each} for _, pk in keys for each in metrics]),
        (Segment, [row for _, pk in keys for row in _segments(pk, now)]),
        (Incident, [row for number, pk in keys for row in _incidents(number, pk, now)]),
        (Intervention, [row for _, pk in keys for row in _interventions(pk, now)]),
        (SkippedBatches, [{"run_pk": pk, **skipped} for _, pk in keys]),
    )
    for table, values in rows:
        session.execute(sa.insert(table), values)


def _run(number: int, count: int, live: int, now: float) -> dict[str, Any]:
    is_live, started = number >= count - live, now - 3600.0 * (count - number)
    optimizer = {"lr": 10.0 ** -(number % 5), "betas": [0.9, 0.95], "name": "adamw", "weight_decay": 0.1}
    model = {f"size_{name}": number % 7 for name in range(15)} | {"width": 512 * (1 + number % 3)}
    config = {"optimizer": optimizer, "model": model, "seed": number // 5, "tags": ["sweep", f"set-{number % 20}"]}
    return {
        "id": f"run-{number:06d}", "project": f"project-{number % 12}", "name": f"sweep {number}", "config": config,
        "state": RunState.RUNNING if is_live else RunState.FINISHED, "host": f"node-{number % 50}",
        "command": "python train.py --config sweep.yaml", "git_commit": "0" * 40, "devices": ["NVIDIA H100"] * 8,
        "versions": {"python": "3.12", "torch": "2.9"}, "capabilities": ["rollback"], "restorable_steps": [],
        "total_steps": 200, "started_at": started, "last_report_at": now if is_live else started + 3000.0,
        "finished_at": None if is_live else started + 3000.0, "note": "looks odd" if number % 100 == 0 else None,
    }  # fmt: skip


def _status(number: int, pk: int, now: float) -> dict[str, Any]:
    values = {name: 2.0 + number % 100 / 50 for name in run_status.GAUGES}
    steps = range(0, run_status.NUM_RATE_REPORTS * REPORTED_STEPS, REPORTED_STEPS)
    return {
        "run_pk": pk, "step": 199, "last_step_at": now, "nonfinite_steps": 0, "skipped_steps": 0,
        "latest_values": values, "undelivered_bytes": 0, "report_gaps": [2.0] * run_status.NUM_GAPS,
        "peaks": [[int(now // run_status.SLOT_SECONDS), {name: 3.0 for name in ("loss", "grad_norm", "log_z")}]],
        "recent_reports": [[now + 0.4 * step, step, 1000.0 * step, 0.4] for step in steps],
    }  # fmt: skip


def _segments(pk: int, now: float) -> Iterator[dict[str, Any]]:
    for number, first, reason in ((0, 0, "start"), (1, 50, "rollback")):
        yield {
            "run_pk": pk, "number": number, "parent": number - 1 if number else None, "fork_step": first,
            "live_order": number, "key": str(number), "reason": reason, "opened_at": now + number,
            "first_step": first, "last_step": first + 99, "num_steps": 100,
        }  # fmt: skip


def _incidents(number: int, pk: int, now: float) -> Iterator[dict[str, Any]]:
    for place, state in enumerate(("closed", "closed", "open" if number % 50 == 0 else "closed"), 1):
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
