"""Parts of a run that several tests play through the protocol: noise, a NaN, a rollback, a pause."""

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from db.models import Run, RunStatus
from db.store import leader
from db.store.engine import writing
from lossguard.vocabulary.protocol import API, EXPECT
from lossguard.vocabulary.source_facts import SOURCE, SourceFacts
from lossguard.vocabulary.wire import Probe
from monitor.leader.leadership import ROLE
from tests.monitor.client import NOW, TestClient, Trainer

CHECKPOINTS = [0, 50, 100, 150, 200, 250, 300]


def noise(seed: int, count: int) -> list[float]:
    generator = random.Random(seed)
    return [3.0 + generator.gauss(0, 0.02) for _ in range(count)]


def trained(http: TestClient, run_id: str = "r1", **values: Any) -> tuple[Trainer, int]:
    """A run of 300 quiet steps with checkpoints, and its segment."""
    trainer = Trainer(http, run_id, **values)
    segment = trainer.open("a")
    trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS)
    return trainer, segment


def train_until_nan(trainer: Trainer, split: Sequence[int] = (300,)) -> dict[str, Any]:
    """300 quiet steps in reports that end at `split`, then a NaN: the response to the NaN."""
    segment = trainer.open("a")
    losses = noise(1, 300)
    for first, last in zip((0, *split[:-1]), split, strict=True):
        trainer.report(segment, range(first, last), {"loss": losses[first:last]}, restorable_steps=CHECKPOINTS)
    return trainer.report(segment, [300], {"loss": [float("nan")]})


ANSWERS_PREFLIGHT = ["rollback", "preflight"]
"""Capabilities of a trainer that answers before a person approves."""


def proposed(http: TestClient, **values: Any) -> tuple[Trainer, dict[str, Any]]:
    """A run with a proposed rollback, and the answer to its last report."""
    trainer = Trainer(http, policy={"mode": "approve"}, **values)
    return trainer, train_until_nan(trainer)


def obey(trainer: Trainer, order: dict[str, Any], key: str = "b") -> int:
    """Sends what the SDK sends after a rollback: the number of the new segment."""
    segment = trainer.open(key, order["rewind_to"], "rollback", order["id"])
    answer = {"state": "applied", "key": order["key"], "rewound_to": order["rewind_to"]}
    answer |= {name: order[name] for name in ("skip_from", "skip_to")}
    for _ in range(2):  # sent again after a crash
        response = trainer.http.put(f"{API}/orders/{order['id']}", json=answer)
        assert response.status_code == 200, response.text
    return segment


def pause_event(step: int, seconds: object) -> dict[str, object]:
    """The event of `run.expect`: the loop pauses before `step`."""
    return {"key": f"e{step}", "step": step, "time": NOW, "kind": EXPECT, "details": {"next_report_in": seconds}}


def source_event(key: str, step: int, facts: SourceFacts) -> dict[str, Any]:
    """The event that says how the rows from `step` on are made."""
    return {"key": key, "step": step, "time": NOW, "kind": SOURCE, "details": facts.to_details()}


def probe_event(step: int, prompt: str = "def ", **details: Any) -> dict[str, Any]:
    probe = Probe(
        prompt=prompt,
        tokens=("a", "b"),
        log_probabilities=(-0.25, math.nan),
        target="b",
        target_log_probability=math.nan,
        rest_count=3,
        rest_log_probability=-2.0,
    )
    key, body = f"probe-{prompt}-{step}-{len(details)}", probe.to_details() | details
    return {"key": key, "step": step, "time": NOW, "kind": "probe", "details": body}


def lease_of(engine: sa.Engine, holder: str = "me") -> leader.Lease:
    """A lease of somebody who has led for a day."""
    with writing(engine) as session:
        lease = leader.claim(session, role=ROLE, holder=holder, seconds=3600.0)
    assert lease is not None
    return leader.Lease(ROLE, holder, lease.term, lease.now - 86400.0, lease.now)


def quiet_since(engine: sa.Engine, *, step: float, report: float | None = None) -> None:
    """The newest step of every run came `step` seconds ago, its newest report `report` seconds ago."""
    now = time.time()
    with writing(engine) as session:
        session.execute(sa.update(RunStatus).values(last_step_at=now - step))
        session.execute(sa.update(Run).values(last_report_at=now - (step if report is None else report)))
