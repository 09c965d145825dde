"""A training script that keeps the restart contract: its model is the list of the batches that it was trained on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lossguard
from lossguard import Order
from lossguard.guard.restart_plan import EXIT_CODE, RestartPlan
from tests.lossguard.recorded import offline

EVERY = 2
"""Steps between two checkpoints."""


class Killed(BaseException):
    """The process ends here, as after kill -9."""


class Script:
    def __init__(self, folder: Path, orders: Mapping[int, Sequence[Order]], **options: Any) -> None:
        """`orders`: by step, what the collector has open from this boundary on."""
        self.folder, self.orders, self.options = folder, dict(orders), options
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.removes_discarded = True
        self.log_every = 1
        self.num_starts = 0
        self.loaded: list[int | None] = []
        """The step of the checkpoint that each start has loaded."""
        self.on: dict[str, Callable[[], None]] = {}
        """Called at the moment of this name: it may raise Killed."""
        self.run: Any = None
        self.plan: RestartPlan

    def on_disk(self) -> list[int]:
        return sorted(int(path.stem) for path in self.checkpoints.glob("*.json"))

    def start(self, until: int) -> list[int]:
        """One process. Returns the model; raises SystemExit when it leaves for an order."""
        self.num_starts += 1
        self.run = offline(self.folder, run_id="r")
        self.plan = plan = lossguard.restart(self.run, **self.options)
        try:
            return self._train(plan, until)
        finally:
            self.run.finish(timeout=1.0)  # the lock of the folder ends with the process

    def run_to_end(self, until: int) -> list[int]:
        """As often as it leaves for an order, or is killed."""
        while True:
            try:
                return self.start(until)
            except Killed:
                continue
            except SystemExit as left:
                if left.code != EXIT_CODE:
                    raise

    def _train(self, plan: RestartPlan, until: int) -> list[int]:
        for late in plan.discarded(self.on_disk()) if self.removes_discarded else []:
            (self.checkpoints / f"{late}.json").unlink()
            self._moment("removed")
        newest = plan.newest(self.on_disk())
        self.loaded.append(newest)
        state: dict[str, Any] = {"step": 0, "batch": 0, "model": []}
        if newest is not None:
            state = json.loads((self.checkpoints / f"{newest}.json").read_text())
        self._moment("loaded")
        plan.resumed(state["step"])
        self._moment("resumed")
        plan.saved(self.on_disk())
        while state["step"] < until:
            batch = plan.next_free(state["batch"])
            state["model"].append(batch)
            if state["step"] % self.log_every == 0:
                self.run.log(state["step"], loss=1.0, batch_index=batch)
            state["step"], state["batch"] = state["step"] + 1, batch + 1
            if state["step"] % EVERY == 0:
                (self.checkpoints / f"{state['step']}.json").write_text(json.dumps(state))
                plan.saved(self.on_disk())
            self._moment(f"step {state['step']}")
            self.run.inbox.receive(
                [order for step, some in self.orders.items() if step <= state["step"] for order in some]
            )
            plan.check()
        return list(state["model"])

    def _moment(self, name: str) -> None:
        if name in self.on:
            self.on.pop(name)()


def kill() -> None:
    raise Killed
