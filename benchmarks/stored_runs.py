"""Stores with thousands of runs, made in seconds: a few runs are written as a collector does, the others are copies."""

import time
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Base, Run
from db.steps import writer
from db.store.engine import writing
from lossguard.vocabulary.states import IncidentState, RunState, SegmentReason

NUM_WRITTEN = 20
"""Runs that are written; each of the others has the rows of one of them."""
COPIED = ("segments", "metrics", "steps", "step_blocks", "block_values", "rollups", "pulses")
"""The tables of which a copy has the same rows."""
SECONDS_BETWEEN_RUNS = 3600.0


def fill(engine: sa.Engine, count: int, steps: int) -> None:
    """Runs of a sweep over learning rate and seed, all but the newest ended; every fifth has a closed incident."""
    noise, now = np.random.default_rng(1), time.time()
    with writing(engine) as session:
        session.execute(sa.insert(Run), [_values(number, count, steps, now) for number in range(count)])
    with writing(engine) as session:
        runs = sorted(queries.runs(session), key=lambda run: run.started_at)
        for run in runs[:NUM_WRITTEN]:
            _write(session, run, steps, noise)
        for place, run in enumerate(runs[:NUM_WRITTEN]):
            _copy(session, run, runs[place + NUM_WRITTEN :: NUM_WRITTEN])
        for run in runs[::5]:
            _add_incident(session, run)


def _values(number: int, count: int, steps: int, now: float) -> dict[str, object]:
    """The columns of the run of this number."""
    began = now - SECONDS_BETWEEN_RUNS * (count - 1 - number)
    config = {
        "optimizer": {"name": "adamw", "lr": 10.0 ** -(number % 4), "betas": [0.9, 0.95], "weight_decay": 0.1},
        "model": {"layers": 12, "heads": 12, "width": 768}, "seed": number // 4 % 5,
        "tags": ["baseline"] if number % 10 == 0 else [],
    }  # fmt: skip
    is_newest = number == count - 1
    return {
        "id": f"r{number}", "project": f"gpt-{number % 8}", "name": f"sweep {number}", "config": config,
        "host": f"node-{number % 16}", "command": "python train.py", "devices": ["NVIDIA H100"], "versions": {},
        "capabilities": [], "restorable_steps": [], "total_steps": steps, "started_at": began,
        "state": RunState.RUNNING if is_newest else RunState.FINISHED, "last_report_at": began + steps,
        "finished_at": None if is_newest else began + steps,
    }  # fmt: skip


def _write(session: Session, run: Run, steps: int, noise: np.random.Generator) -> None:
    """A segment with steps of two metrics."""
    segment = commands.open_segment(
        session, run=run, key="a", fork_step=0, reason=SegmentReason.START, order_id=None, opened_at=run.started_at
    )[0]
    at = np.arange(steps)
    loss = 2.1 + 3.4 * np.exp(-at / (steps / 5)) + noise.normal(0, 0.03, steps)
    writer.insert_steps(
        session, run=run, segment=0, steps=range(steps), times=(run.started_at + at).tolist(),
        metrics={"loss": loss.tolist(), "grad_norm": (loss / 5).tolist()},
    )  # fmt: skip
    commands.grow_segment(segment, steps=range(steps))
    status = commands.run_status_of(session, run=run, now=run.started_at)
    status.step, status.latest_values = steps - 1, {"loss": float(loss[-1]), "grad_norm": float(loss[-1] / 5)}
    session.flush()


def _copy(session: Session, run: Run, copies: Sequence[Run]) -> None:
    """Give each of the copies the rows of the run."""
    for name in COPIED:
        table = Base.metadata.tables.get(name)
        if table is None or not copies:
            continue
        others = [column for column in table.columns if column.name != "run_pk"]
        pairs = sa.select(Run.pk, *others).join_from(Run, table, table.c.run_pk == run.pk)
        rows = pairs.where(Run.pk.in_([each.pk for each in copies]))
        session.execute(sa.insert(table).from_select(["run_pk", *(column.name for column in others)], rows))


def _add_incident(session: Session, run: Run) -> None:
    commands.save_incident(
        session, run=run, number=1, now=run.started_at, segment=0, kind="loss_spike", state=IncidentState.CLOSED,
        signal="loss", onset_step=10, detected_step=11, peak_step=12, end_step=20, score=9.0, outcome="recovered",
        details={},
    )  # fmt: skip
