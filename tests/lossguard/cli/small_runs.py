"""Small runs of a real collector, for the commands that ask it."""

import time
from collections.abc import Sequence
from typing import Any

from lossguard import Client
from lossguard.vocabulary.protocol import encode_number


class SmallRun:
    """Registers a run and reports to it."""

    def __init__(self, client: Client, run_id: str, **values: Any) -> None:
        self.client, self.id, self.segment = client, run_id, 0
        body = {"id": run_id, "project": "gpt", "capabilities": ["rollback"], "started_at": time.time()}
        client.request("POST", "/runs", body | values)

    def open(self, fork_step: int = 0, reason: str = "start", order: int | None = None) -> None:
        body = {"key": f"{self.id}-{fork_step}-{reason}", "fork_step": fork_step, "reason": reason, "order": order}
        answer = self.client.request("POST", f"/runs/{self.id}/segments", body | {"opened_at": time.time()})
        self.segment = answer["segment"]

    def report(self, first: int, losses: Sequence[float], **others: Any) -> Any:
        """Steps from `first` on, one for each loss."""
        steps = list(range(first, first + len(losses)))
        now = time.time()
        body = {
            "segment": self.segment,
            "steps": steps,
            "times": [now + 0.001 * i for i in range(len(steps))],
            "metrics": {"loss": [encode_number(loss) for loss in losses]},
        }
        return self.client.request("POST", f"/runs/{self.id}/reports", body | others)

    def finish(self, state: str = "finished") -> None:
        self.client.request("POST", f"/runs/{self.id}/finish", {"state": state, "at": time.time()})

    def get(self, path: str = "") -> Any:
        return self.client.get(f"/runs/{self.id}{path}")


def trained(client: Client, run_id: str, num_steps: int = 20, **values: Any) -> SmallRun:
    """A run with so many quiet steps, which can be restored at step 0 and 10."""
    run = SmallRun(client, run_id, **values)
    run.open()
    losses = [3.0 - 0.01 * step for step in range(num_steps)]
    run.report(0, losses, restorable_steps=[step for step in (0, 10) if step < num_steps])
    return run
