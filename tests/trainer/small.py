"""The smallest recipe that really trains, shared by the tests."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossguard import Order
from lossguard.delivery.sender import Inbox
from trainer.config import CheckpointConfig, DataConfig, ModelConfig, OptimizerConfig, Recipe

TEXT = b"".join(b"%d bottles of beer on the wall, %d bottles of beer.\n" % (n, n) for n in range(99, 0, -1))


def small_recipe(folder: Path, **overrides: Any) -> Recipe:
    """A 2-layer model of width 16 on a short text, with a checkpoint every 5 steps."""
    text = folder / "text.txt"
    text.write_bytes(TEXT)
    settings: dict[str, Any] = {
        "name": "small",
        "steps": 20,
        "device": "cpu",
        "evaluate_every": 10,
        "evaluate_windows": 4,
        "model": ModelConfig(layers=2, heads=2, width=16, context=16),
        "data": DataConfig(path=str(text), batch_size=4),
        "optimizer": OptimizerConfig(lr=1e-2, warmup_steps=4, decay_steps=40),
        "checkpoint": CheckpointConfig(every=5),
    }
    return Recipe(**(settings | overrides))


def waits_for_an_order(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, dict[str, float]], None]:
    """`Job.on_step` of a run that gets an order: after `step` it waits for that, or it might end before."""
    has_order, receive = threading.Event(), Inbox.receive

    def noted(inbox: Inbox, orders: list[Order], *others: Any) -> None:
        receive(inbox, orders, *others)
        if orders:
            has_order.set()

    def wait(done: int, batch: int, metrics: dict[str, float]) -> None:
        assert done < step or has_order.wait(60)

    monkeypatch.setattr(Inbox, "receive", noted)
    return wait


def logged(directory: Path, run_id: str) -> dict[int, dict[str, Any]]:
    """What the spools of a run hold: the newest metrics of every step."""
    steps: dict[int, dict[str, Any]] = {}
    for spool in sorted(directory.glob(f"*/{run_id}/*.spool")):
        for line in map(json.loads, spool.read_text().splitlines()):
            if "metrics" in line:
                steps[line["step"]] = line["metrics"]
    return steps
