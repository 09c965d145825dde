"""A store that a real collector filled: a run with a spike, and the decision of the policy."""

import time
from typing import Any

import numpy as np
import sqlalchemy as sa

from lossguard.vocabulary.protocol import API, CAN_ROLL_BACK, NO_HEARTBEAT
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import TestClient

SPIKE = 640
"""First step at which the loss is out of band; the grad norm leaves its band two steps earlier."""


def report_a_spike(engine: sa.Engine, *, run_id: str = "asking", mode: str = "approve") -> None:
    """A run of SPIKE + 30 steps through the collector's own routes; it counts as silent only after ten minutes."""
    steps = SPIKE + 30
    with TestClient(create_app(Settings(), engine=engine)) as http:
        now = time.time()
        body = {"id": run_id, "project": "gpt-small", "capabilities": [CAN_ROLL_BACK, NO_HEARTBEAT], "started_at": now}
        assert http.post(f"{API}/runs", json=body).status_code == 201
        http.put(f"{API}/runs/{run_id}/policy", json={"mode": mode})
        opening = {"key": "a-1", "fork_step": 0, "reason": "start", "order": None, "opened_at": now}
        http.post(f"{API}/runs/{run_id}/segments", json=opening)
        columns = curve(steps)
        for start in range(0, steps, 100):
            part = slice(start, min(start + 100, steps))
            report = {
                "segment": 0,
                "steps": list(range(steps))[part],
                "times": [now - 0.2 * (steps - step) for step in range(steps)][part],
                "metrics": {name: column[part].tolist() for name, column in columns.items()},
                "restorable_steps": list(range(0, part.stop, 50)),
            }
            assert http.post(f"{API}/runs/{run_id}/reports", json=report).status_code == 200


def curve(steps: int) -> dict[str, Any]:
    at, noise = np.arange(steps), np.random.default_rng(5)
    bad = np.clip((at - SPIKE) / 20, 0, 1)
    early = np.clip((at - SPIKE + 2) / 20, 0, 1)
    return {
        "loss": 2.1 + 3.4 * np.exp(-at / 140) + noise.normal(0, 0.03, steps) + 5 * bad,
        "grad_norm": np.exp(noise.normal(-0.7, 0.1, steps)) * (1 + 40 * early),
        "log_z": 1.2 + noise.normal(0, 0.01, steps) + bad,
        "batch_index": at.astype(float),
    }
