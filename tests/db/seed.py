"""Small stored runs for the tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from db import commands, step_rows
from db.models import Run, Segment
from lossguard.protocol import SegmentReason

NOW = 1_000_000.0


def add_run(session: Session, run_id: str = "r1", **values: Any) -> Run:
    defaults: dict[str, Any] = {
        "id": run_id,
        "project": "gpt",
        "name": None,
        "config": {"lr": 1e-3},
        "command": "python train.py",
        "git_commit": None,
        "host": "h",
        "devices": ["cpu"],
        "versions": {},
        "capabilities": ["rollback"],
        "policy": None,
        "total_steps": 600,
        "started_at": NOW,
    }
    return commands.register_run(session, values=defaults | values, now=NOW)[0]


def add_segment(session: Session, run: Run, key: str, fork_step: int | None = 0) -> Segment:
    reason = SegmentReason.START if fork_step == 0 else SegmentReason.ROLLBACK
    return commands.open_segment(
        session, run=run, key=key, fork_step=fork_step, reason=reason, order_id=None, opened_at=NOW
    )[0]


def add_steps(
    session: Session, run: Run, segment: Segment, steps: Sequence[int], **metrics: Sequence[float | None]
) -> None:
    columns: Mapping[str, Sequence[float | None]] = metrics or {"loss": [float(step) for step in steps]}
    times = [NOW + step for step in steps]
    step_rows.insert_steps(session, run=run, segment=segment.number, steps=steps, times=times, metrics=columns)
    commands.grow_segment(segment, steps=steps)
