"""Runs with open incidents, and how they continue: the scenario that tests the store of an earlier release.

    python -m tests.db.stores.scenario FOLDER

The code of a release runs it. It writes FOLDER/store.db.xz, and FOLDER/outcome.json: how that release continues.
"""

import json
import lzma
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from db import migrate
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer

CHECKPOINTS = [0, 50, 100, 150, 200, 250, 300]
INCIDENT = [
    "number",
    "kind",
    "state",
    "signal",
    "onset_step",
    "detected_step",
    "peak_step",
    "end_step",
    "score",
    "outcome",
]
INTERVENTION = ["number", "kind", "state", "attempt", "rewind_to", "skip_from", "skip_to", "lr_scale", "incident"]
ORDER = ["kind", "incident", "rewind_to", "skip_from", "skip_to", "lr_scale"]


def begin(http: TestClient) -> None:
    """A run with an open order, one with a rollback that is not verified yet, and one with an open incident alone."""
    ordered = Trainer(http, "ordered")
    segment = ordered.open("a")
    report(ordered, segment, 0, 300, restorable_steps=CHECKPOINTS)
    assert report(ordered, segment, 300, 360, loss=9.0, grad_norm=50.0)["orders"]
    verifying = Trainer(http, "verifying")
    segment = verifying.open("a")
    report(verifying, segment, 0, 300, restorable_steps=CHECKPOINTS)
    (order,) = report(verifying, segment, 300, 301, loss=float("nan"))["orders"]
    report(verifying, obey(verifying, order), 200, 220)
    spiking = Trainer(http, "spiking")
    segment = spiking.open("a")
    for step in range(0, 301, 7):
        report(spiking, segment, step, step + 7, restorable_steps=CHECKPOINTS)
    assert report(spiking, segment, 308, 312, loss=9.0, grad_norm=50.0)["orders"] == []


def continue_runs(http: TestClient) -> dict[str, Any]:
    """Continue these runs, and return the outcome."""
    orders = []
    for run_id, first in (("ordered", 360), ("spiking", 312)):
        trainer = Trainer(http, run_id)
        http.put(f"{API}/runs/{run_id}/policy", json={"name": "palm"})  # the only policy of that release
        (order,) = report(trainer, 0, first, first + 60, loss=9.0, grad_norm=50.0)["orders"]
        orders.append(chosen(order, ORDER))
        skipped = order["skip_to"] - order["skip_from"]
        report(trainer, obey(trainer, order), order["rewind_to"], 700, skipped=skipped)
    report(Trainer(http, "verifying"), 1, 220, 700)
    outcomes = {run_id: outcome(Trainer(http, run_id)) for run_id in ("ordered", "verifying", "spiking")}
    return {"orders": orders} | outcomes


def report(
    trainer: Trainer,
    segment: int,
    first: int,
    end: int,
    *,
    loss: float = 3.0,
    grad_norm: float = 1.0,
    skipped: int = 0,
    **others: Any,
) -> dict[str, Any]:
    """Steps [first, end) with noise around these levels, after `skipped` batches that were not used."""
    generator, steps = random.Random(first), range(first, end)
    metrics: dict[str, list[float | None]] = {
        "loss": [loss + generator.gauss(0, 0.02) for _ in steps],
        "grad_norm": [grad_norm + generator.gauss(0, 0.02) for _ in steps],
        "lr": [3e-4 for _ in steps],
        "tokens": [512 * (step + 1) for step in steps],
        "batch_index": [step + skipped for step in steps],
        "eval/loss": [0.1 if step % 50 == 0 else None for step in steps],
    }
    return trainer.report(segment, steps, metrics, **others)


def obey(trainer: Trainer, order: dict[str, Any]) -> int:
    """Open the segment of a rollback, and answer the order as the SDK does: the number of the segment."""
    segment = trainer.open("b", order["rewind_to"], "rollback", order["id"])
    answer = {"state": "applied", "rewound_to": order["rewind_to"]} | chosen(order, ["key", "skip_from", "skip_to"])
    assert trainer.http.put(f"{API}/orders/{order['id']}", json=answer).status_code == 200
    return segment


def outcome(trainer: Trainer) -> dict[str, Any]:
    found = trainer.get()
    return {
        "incidents": [chosen(row, INCIDENT) for row in trainer.get("/incidents")],
        "interventions": [chosen(row, INTERVENTION) for row in found["interventions"]],
        "newest_step": found["newest_step"],
        "loss": trainer.get("/series", metric="loss", points=40),
    }


def chosen(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def with_collector(store: Path, do: Any) -> Any:
    engine = create_engine(f"sqlite:///{store}")
    migrate.upgrade(engine)
    try:
        with TestClient(create_app(Settings(), engine=engine, clock=lambda: NOW)) as http:
            return do(http)
    finally:
        engine.dispose()


def write(folder: Path) -> None:
    store = folder / "store.db"
    with_collector(store, begin)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM")
    (folder / "store.db.xz").write_bytes(lzma.compress(store.read_bytes()))
    (folder / "outcome.json").write_text(
        json.dumps(with_collector(store, continue_runs), indent=1) + "\n", encoding="utf-8"
    )
    store.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
