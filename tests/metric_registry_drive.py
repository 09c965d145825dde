"""For test_metric_registry: run in a copy of the repository, it drives two new metrics all the way and prints JSON.

`dead_units` is a metric, `weight_norm` a signal; the copy has them in its registry.
"""

import json
import os
import random
from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient

from db import migrate
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings

DATABASE_URL = "sqlite:///store.db"
STEPS, SPIKE = 400, 300


def main() -> None:
    os.environ["LOSSGUARD_DATABASE_URL"] = DATABASE_URL  # the dashboard reads it
    engine = create_engine(DATABASE_URL)
    migrate.upgrade(engine)
    result: dict[str, Any] = {"drift": migrate.drift(engine)}
    report(engine, result)
    draw(result)
    print(json.dumps(result))


def report(engine: sa.Engine, result: dict[str, Any]) -> None:
    noise = random.Random(0)
    metrics = {
        "loss": [3.0 + noise.gauss(0, 0.02) for _ in range(STEPS)],
        "dead_units": [1.25 + step for step in range(STEPS)],
        "weight_norm": [(40.0 if step >= SPIKE else 1.0) * (1 + noise.uniform(0, 0.1)) for step in range(STEPS)],
    }
    run = {"id": "r1", "project": "p", "started_at": 0.0, "config": {}}
    segment = {"key": "a", "fork_step": 0, "reason": "start", "opened_at": 0.0}
    columns = {"segment": 0, "steps": [*range(STEPS)], "times": [float(step) for step in range(STEPS)]}
    app = create_app(Settings(database_url=DATABASE_URL), engine=engine)
    with TestClient(app, base_url="http://127.0.0.1") as http:
        for path, body in (("", run), ("/r1/segments", segment), ("/r1/reports", columns | {"metrics": metrics})):
            answer = http.post(f"{API}/runs{path}", json=body)
            assert answer.is_success, answer.text
        result["metrics"] = http.get(f"{API}/runs/r1").json()["metrics"]
        result["series"] = http.get(f"{API}/runs/r1/series?metric=dead_units&points=1000").json()["last"]
        result["incidents"] = http.get(f"{API}/runs/r1/incidents").json()
        result["prometheus"] = http.get("/metrics").text


def draw(result: dict[str, Any]) -> None:
    from dashboard.data import cached
    from dashboard.figures.curves import run_figure
    from dashboard.figures.incident import incident_figure
    from dashboard.figures.marks import Marks
    from lossguard.vocabulary.metrics import default_charts

    facts = cached.facts("r1")
    assert facts is not None
    curves = cached.curves(facts, default_charts(facts.metrics))
    run = run_figure(curves.by_metric, Marks(incidents=facts.incidents))
    incident = facts.incidents[0]
    signal = incident_figure(cached.incident_window(facts, incident), incident, [], (), None)
    result["charts"] = [each.text for figure in (run, signal) for each in figure.layout.annotations]


if __name__ == "__main__":
    main()
