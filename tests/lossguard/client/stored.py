"""A run with everything that a frame must keep, behind a collector in this process."""

import math

import sqlalchemy as sa

from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, AppClient, TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan

EXTREME = [5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2, None, math.nan, math.inf, -math.inf]


def collector(engine: sa.Engine) -> TestClient:
    return TestClient(create_app(Settings(), engine=engine, clock=lambda: NOW + 1000.0))


def add_run(http: TestClient, run_id: str = "r1") -> None:
    """A rollback from a NaN at step 300, then extreme values and a metric with the name of a column."""
    trainer = Trainer(http, run_id)
    (order,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, order)
    first = order["rewind_to"]
    steps = range(first, 500)
    trainer.report(segment, steps, {"loss": noise(3, len(steps)), "tokens": [4096.0 * step for step in steps]})
    steps = range(500, 500 + len(EXTREME))
    ones: list[float | None] = [1.0] * len(EXTREME)
    metrics: dict[str, list[float | None]] = {"loss": ones, "eval/x,y": EXTREME, "=formula": ones, "step": EXTREME}
    event = {"key": "e", "step": 500, "time": NOW, "kind": "data_mix", "details": {"share": "Infinity"}}
    trainer.report(segment, steps, metrics, events=[event])
    answer = http.post(f"{API}/runs/{run_id}/finish", json={"state": "finished", "at": NOW + 900.0})
    assert answer.status_code == 200, answer.text


def client(http: TestClient) -> AppClient:
    return AppClient(http)
