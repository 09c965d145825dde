"""Fills a store with a run that has everything a page can show.

python -m tests.dashboard.seed sqlite:///out/seeded.db          two runs, to look at
"""

import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, migrate, queries
from db.models import Run, Segment
from db.records import access
from db.runs import overview
from db.steps import writer
from db.steps.archived.places import Place
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.protocol import PROBE
from lossguard.vocabulary.states import OrderState, RunState, SegmentReason
from lossguard.vocabulary.wire import Probe
from tests.db.archive.stored import add_ended_run, archive

SPIKE, REWIND, STEPS = 412, 300, 800
"""First bad step; the step of the rollback; the end of the run."""
SEGMENT_END = 428
"""One past the last step of the old segment."""


def seed(engine: sa.Engine, *, run_id: str = "spiky-1", state: RunState = RunState.RUNNING, now: float) -> None:
    """A run of STEPS steps: a spike at SPIKE, a rollback to REWIND, a NaN afterwards, declared events."""
    start = now - 0.4 * (STEPS + SEGMENT_END - REWIND)
    with writing(engine) as session:
        run = commands.register_run(session, values=_registration(run_id, start), now=start)[0]
        old = _segment(session, run, "a", 0, SegmentReason.START, start)
        report(session, old, range(SEGMENT_END), start)
        _incident(session, run, start + 0.4 * SEGMENT_END)
        new = _segment(session, run, "b", REWIND, SegmentReason.ROLLBACK, start + 0.4 * SEGMENT_END)
        report(session, new, range(REWIND, STEPS), start + 0.4 * (SEGMENT_END - REWIND))
        _events(session, run, start)
        for segment, steps in ((old, range(0, SEGMENT_END, 100)), (new, range(REWIND, STEPS, 50))):
            _probes(session, run, segment, steps, start)
        run.last_report_at = now
        overview.fill_in(session, run=run)
        if state is not RunState.RUNNING:
            commands.finish_run(session, run=run, state=state, at=now, now=now)


def stored(session: Session, run_id: str = "spiky-1") -> Run:
    """The run of this id, which the store has."""
    run = queries.run_named(session, run_id=run_id)
    assert run is not None
    return run


def save_incident(session: Session, run: Run, number: int = 1, *, now: float = 1.0, **values: Any) -> None:
    """An open loss spike at step 3 unless `values` say otherwise."""
    usual: dict[str, Any] = {
        "segment": 0, "kind": "loss_spike", "state": "open", "signal": "loss", "onset_step": 3, "detected_step": 4,
        "details": {},
    }  # fmt: skip
    commands.save_incident(session, run=run, number=number, now=now, **(usual | values))


def archive_run(store: sa.Engine, run_id: str, folder: Path) -> None:
    """Add a run whose steps are archived, too few for roll-ups alone: a chart reads the file."""
    with writing(store) as session:
        add_ended_run(session, run_id)
    archive(store, Place(str(folder)), run_id)


def trail(engine: sa.Engine) -> list[str]:
    """The actions in the audit trail, newest first."""
    with reading(engine) as session:
        return [line.action for line in access.trail(session)]


def _registration(run_id: str, start: float) -> dict[str, object]:
    return {
        "id": run_id,
        "project": "gpt-small",
        "name": "stdlib bytes",
        "config": {"lr": 3e-4, "batch_size": 32, "context": 256, "num_parameters": 826_368, "tags": ["baseline"]},
        "command": "python -m trainer run --recipe tiny",
        "git_commit": "0123456789abcdef",
        "host": "trainer-1",
        "devices": ["cpu"],
        "versions": {"torch": "2.9.0"},
        "capabilities": ["rollback"],
        "policy": None,
        "total_steps": 1200,
        "started_at": start,
    }


def _segment(session: Session, run: Run, key: str, fork: int, reason: SegmentReason, at: float) -> Segment:
    order = 1 if reason is SegmentReason.ROLLBACK else None
    return commands.open_segment(session, run=run, key=key, fork_step=fork, reason=reason, order_id=order, opened_at=at)


def report(session: Session, segment: Segment, steps: range, start: float) -> None:
    """Steps of 0.4 s; step 0 would be at `start`."""
    noise = random.Random(segment.number)
    metrics = {name: [] for name in ("loss", "grad_norm", "log_z", "lr", "tokens")}  # type: dict[str, list[float | None]]
    for step in steps:
        bad = max(0.0, 1 - abs(step - SPIKE - 8) / 14) if segment.number == 0 and step >= SPIKE - 4 else 0.0
        loss = 2.1 + 3.4 * math.exp(-step / 140) + noise.gauss(0, 0.03) + 5 * bad
        metrics["loss"].append(math.nan if segment.number == 1 and step == 655 else loss)
        metrics["grad_norm"].append(0.4 + 2 * math.exp(-step / 60) + abs(noise.gauss(0, 0.05)) + 40 * bad)
        metrics["log_z"].append(1.2 - 0.4 * math.exp(-step / 200) + noise.gauss(0, 0.01) + 2 * bad)
        metrics["lr"].append(3e-4 * min(1, (step + 1) / 100) * (0.55 + 0.45 * math.cos(math.pi * step / 1200)))
        metrics["tokens"].append((step + 1) * 32 * 256.0)
    times = [start + 0.4 * step for step in steps]
    writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=metrics)


def _incident(session: Session, run: Run, now: float) -> None:
    reasons = [
        "grad norm 11.8 left its band (0.52 +- 0.05) at step 409: onset.",
        "loss 4.61 is 31 robust deviations above the expected 2.28 at step 413.",
    ]
    details: dict[str, Any] = {"peak_value": 7.28, "expected": 2.28, "scale": 0.03, "reasons": reasons}
    save_incident(
        session, run, now=now, state="closed", onset_step=409, detected_step=413, peak_step=420,
        end_step=SEGMENT_END - 1, score=3.1, outcome="recovered", details=details,
    )  # fmt: skip
    why = "The loss was still rising after 8 steps; step 300 is the newest restorable step long before the onset."
    intervention = commands.save_intervention(
        session, run=run, number=1, now=now, incident=1, kind="rollback", state="verified", attempt=1,
        rewind_to=REWIND, skip_from=300, skip_to=500, lr_scale=None,
        details={"decided_step": 421, "verify_at": 521, "reasons": [why]},
    )  # fmt: skip
    order = commands.issue_order(session, intervention=intervention, reason=why, now=now)
    done: dict[str, Any] = {"state": OrderState.APPLIED, "rewound_to": REWIND, "skip_from": 300, "skip_to": 500}
    commands.answer_order(session, order=order, detail="", now=now, **done)


def _events(session: Session, run: Run, start: float) -> None:
    happened: list[tuple[int, str, dict[str, object]]] = [
        (100, "learning_rate", {"phase": "end of the warm-up", "lr": 3e-4}),
        (205, "outlier", {"signal": "loss", "value": 3.4, "score": 1.3}),
        (600, "batch_size", {"from": 32, "to": 64}),
    ]
    for step, kind, details in happened:
        at = start + 0.4 * step
        commands.add_event(session, run=run, key=f"e{step}", segment=0, step=step, time=at, kind=kind, details=details)


PROMPTS = {"import sys": ("s", ["a", "o", "t", "y", "\\n"]), "def __init__(self": ("f", ["t", ",", " ", ")"])}
"""The true token of each, and some others."""


def _probes(session: Session, run: Run, segment: Segment, steps: range, start: float) -> None:
    """The true token is learned, and forgotten in the spike."""
    for step in steps:
        forgotten = segment.number == 0 and step >= SPIKE - 12
        learnt = 0.2 if forgotten else min(0.9, 0.05 + step / 600)
        for prompt, (target, others) in PROMPTS.items():
            shares = [learnt, *((1 - learnt) * share for share in (0.4, 0.25, 0.15, 0.1, 0.05)[: len(others)])]
            ranked = sorted(zip(shares, [target, *others], strict=True), reverse=True)
            probe = Probe(
                prompt=prompt,
                tokens=tuple(token for _, token in ranked),
                log_probabilities=tuple(math.log(share) for share, _ in ranked),
                target=target,
                target_log_probability=math.log(learnt),
                rest_count=250,
                rest_log_probability=math.log(1 - sum(shares)),
            )
            key, at = f"probe-{segment.number}-{step}-{target}", start + 0.4 * step
            values: dict[str, Any] = {"segment": segment.number, "step": step, "time": at, "kind": PROBE}
            commands.add_event(session, run=run, key=key, details=probe.to_details(), **values)


def main(url: str) -> None:
    engine = create_engine(url)
    migrate.upgrade(engine)
    seed(engine, now=time.time())
    seed(engine, run_id="done-1", state=RunState.FINISHED, now=time.time() - 86400)


if __name__ == "__main__":
    main(sys.argv[1])
