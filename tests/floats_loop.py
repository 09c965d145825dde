"""A loop of plain floats: no framework, and checkpoints in a dictionary. Two of its batches are corrupted."""

import random
import time
from collections.abc import Sequence
from typing import Any

import lossguard

CORRUPTED = (300, 301)


class Checkpoints:
    """The checkpoints of the only weight; see lossguard.CheckpointStore."""

    def __init__(self) -> None:
        self.weight = 2.0
        self.saved: dict[int, tuple[float, dict[str, Any]]] = {}
        self.rolled_back = False

    def steps(self) -> list[int]:
        return sorted(self.saved)

    def save(self, step: int, state: dict[str, Any]) -> None:
        self.saved[step] = (self.weight, state)

    def settle(self, wait: bool = False) -> bool:
        return False

    def pin(self, steps: Sequence[int]) -> None:
        """All of them are kept."""

    def load(self, step: int) -> dict[str, Any]:
        self.rolled_back = True
        self.weight, state = self.saved[max(each for each in self.saved if each <= step)]
        return state

    def discard_after(self, step: int) -> None:
        self.saved = {each: kept for each, kept in self.saved.items() if each <= step}


checkpoints = Checkpoints()
run = lossguard.init("floats", run_id="floats")
guard = lossguard.Guard(run, checkpoints=checkpoints, every=25)
for step, batch in guard.steps(range(10_000), until=600):
    noise = random.Random(batch).gauss(0.0, 0.02)
    checkpoints.weight += 2.0 if batch in CORRUPTED else 0.005 * (1.0 - checkpoints.weight)
    run.log(step, loss=2.0 + checkpoints.weight + noise)
    is_waiting = step > 320 and not checkpoints.rolled_back  # for the order, on a busy machine
    time.sleep(0.5 if is_waiting else 0.005)
run.finish()
