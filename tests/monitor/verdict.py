"""The verdict of a replay, as a trainer sends it."""

from typing import Any

from tests.monitor.client import NOW

ARM = {"state": "same", "batches": "same", "checkpoint": 5, "reproduced": True, "worst": "NaN"}
VERDICT: dict[str, Any] = {
    "cause": "data",
    "sentence": "The batches do it.",
    "evidence": {
        "signal": "loss",
        "first_step": 5,
        "last_step": 7,
        "recorded": [2.0, 2.0, "NaN"],
        "departed_at": None,
        "repeat_tolerance": 0.0,
        "arms": [ARM | {"expected": 2.0, "tolerance": 0.1, "losses": [2.0, 2.0, "NaN"]}],
    },
    "culprits": [{"batch_from": 7, "batch_to": 9}],
    "excerpts": [{"batch": 7, "row": 0, "loss": 5.5, "inputs": "a \u2261 b", "targets": "b"}],
    "replayed_at": NOW,
    "version": "1.0.0",
}
