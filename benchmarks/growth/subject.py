"""The run whose costs are measured, with its steps, metrics and incidents."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks import ingest, store
from benchmarks.client import METRICS
from db import commands, queries
from db.lineage import StepRange
from db.models import Incident
from db.steps.reader import read_blocks
from db.store.engine import writing
from monitor.detection import DetectionEngine
from monitor.ingestion import detection_state
from monitor.ingestion.columns import stored_rows

SEGMENT = 1
"""The newest of a run that `store.fill` has stored."""
LEARNED_STEPS = 1_000
"""Steps that the saved state of its detection has seen."""
CHUNK = 100_000
"""Steps of a transaction."""


@dataclass(slots=True)
class Subject:
    """A run that was rolled back once and reports."""

    length: int
    """Steps that it had when it was stored."""
    num_metrics: int = len(METRICS)
    """Metrics of a report: the standard ones, then custom ones."""
    num_live: int = 1
    """Live runs of its store."""
    next_step: int = field(init=False)
    noise: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.next_step = self.length

    @property
    def run(self) -> str:
        """Its id."""
        return f"run-{self.length}"

    @property
    def custom_metrics(self) -> list[str]:
        return [f"layer/{number}" for number in range(self.num_metrics - len(METRICS))]

    def report(self, size: int) -> bytes:
        """The body of its next report, of `size` steps."""
        body = ingest.report(self.noise, self.next_step, size, segment=SEGMENT)
        more = {name: [self.noise.gauss(1, 0.1) for _ in range(size)] for name in self.custom_metrics}
        self.next_step += size
        return json.dumps(body | {"metrics": body["metrics"] | more}).encode()


def write(engine: sa.Engine, subject: Subject, *, all_metrics: bool = True) -> None:
    """Store its steps, with loss and lr or all metrics, and the state of its detection."""
    others = [name for name in METRICS if name not in ("loss", "lr")] + subject.custom_metrics
    store.fill(engine, subject.length, more=others if all_metrics else (), chunk=CHUNK)
    with writing(engine) as session:
        run = commands.lock_run(session, run_id=subject.run)
        assert run is not None
        run.last_report_at = run.started_at = time.time()
        segment, last = queries.newest_segment(session, run=run), subject.length
        watching, seen = DetectionEngine(), StepRange(SEGMENT, last - LEARNED_STEPS, last)
        for block in read_blocks(session, run_pk=run.pk, step_range=seen, metrics=["loss"]):
            watching.feed(stored_rows(block))
        detection_state.save(session, run, watching, [], segment=segment, now=time.time())


def add_incidents(engine: sa.Engine, subject: Subject, count: int) -> None:
    """Closed incidents, evenly spread over its steps."""
    if count:
        with writing(engine) as session:
            run = queries.run_named(session, run_id=subject.run)
            assert run is not None
            session.execute(sa.insert(Incident), list(_incidents(run.pk, subject.length, count)))


def _incidents(run_pk: int, length: int, count: int) -> Iterator[dict[str, Any]]:
    now = time.time()
    for number, onset in enumerate(np.linspace(0, length - 10, count).astype(int).tolist(), 1):
        yield {
            "run_pk": run_pk, "number": number, "segment": int(onset >= length // 2), "kind": "loss_spike",
            "state": "closed", "signal": "loss", "onset_step": onset, "detected_step": onset + 2,
            "peak_step": onset + 3, "end_step": onset + 6, "score": 3.0 + number % 50, "outcome": "recovered",
            "details": {"peak_value": 9.0, "expected": 3.0, "scale": 0.03, "reasons": ["The loss rose for 3 steps."]},
            "opened_at": now, "changed_at": now,
        }  # fmt: skip
