"""The short report at the end of the demo, from the collector's data about the run."""

from dataclasses import dataclass
from typing import Any

from lossguard import Client


@dataclass(frozen=True, slots=True)
class Report:
    """What happened to the injected fault. Steps and batches are counts or absolute numbers; None: does not apply."""

    run_id: str
    kind: str | None
    onset: int | None
    detected_after: int | None
    """Steps from the onset to the detection."""
    rewound_to: int | None
    skip_from: int | None
    skip_to: int | None
    steps_lost: int
    """Steps that were computed and then discarded."""
    verified: bool
    final_step: int | None
    final_loss: float | str | None

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) pairs in reading order."""
        if self.onset is None:
            return [("spike", "not detected"), *self._end()]
        spike = [
            ("spike", f"{self.kind}, onset at step {self.onset}"),
            ("detected", f"{self.detected_after} step{'' if self.detected_after == 1 else 's'} after the onset"),
        ]
        if self.rewound_to is None:
            return [*spike, ("rolled back", "no"), *self._end()]
        return [
            *spike,
            ("rewound to", f"step {self.rewound_to}"),
            ("skipped", self._skipped()),
            ("steps lost", str(self.steps_lost)),
            ("verified", "yes" if self.verified else "NO"),
            *self._end(),
        ]

    def _skipped(self) -> str:
        if self.skip_from is None or self.skip_to is None:
            return "no batches: they are used again"
        return f"{self.skip_to - self.skip_from} batches ({self.skip_from} to {self.skip_to - 1})"

    def _end(self) -> list[tuple[str, str]]:
        loss = f"{self.final_loss:.4f} nats per token" if isinstance(self.final_loss, float) else str(self.final_loss)
        return [("final loss", f"{loss} at step {self.final_step}")]


def read_report(client: Client, run_id: str) -> Report:
    """The report on the first incident with a rollback, or else on the first incident. Raises CollectorError."""
    run = client.get(f"/runs/{run_id}")
    incidents = client.get(f"/runs/{run_id}/incidents")
    orders = [order for order in run["orders"] if order["kind"] == "rollback" and order["state"] == "applied"]
    acted_on = {order["incident"] for order in orders}
    incident: dict[str, Any] = next(
        (one for one in incidents if one["number"] in acted_on), incidents[0] if incidents else {}
    )
    order: dict[str, Any] = next((one for one in orders if one["incident"] == incident.get("number")), {})
    skip: dict[str, Any] = next((one for one in run["skip_ledger"] if one["order_id"] == order.get("id")), {})
    states = {one["number"]: one["state"] for one in run["interventions"]}
    newest = run["newest_step"] or {"step": None, "metrics": {}}
    return Report(
        run_id=run_id,
        kind=incident.get("kind"),
        onset=incident.get("onset_step"),
        detected_after=incident["detected_step"] - incident["onset_step"] if incident else None,
        rewound_to=order.get("rewound_to"),
        skip_from=skip.get("skip_from"),
        skip_to=skip.get("skip_to"),
        steps_lost=sum(one["num_steps"] for one in run["segments"]) - _num_live(newest["step"]),
        verified=states.get(order.get("intervention")) == "verified",
        final_step=newest["step"],
        final_loss=newest["metrics"].get("loss"),
    )


def _num_live(newest_step: int | None) -> int:
    """Steps that were not discarded: they begin at 0."""
    return 0 if newest_step is None else newest_step + 1
