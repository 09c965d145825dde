"""A run whose orders come from the detection engine, in the same process and after each step."""

from typing import Any

from lossguard import Order
from lossguard.vocabulary.states import OrderMode
from monitor.detection import DetectionEngine, Policy, Rows
from tests.lossguard.hf.small import LoggedRun
from tests.monitor.detection.runs import EffectLog, orders


class DetectedRun(LoggedRun):
    """Every logged step is detected at once, and the next boundary has the order."""

    def __init__(self) -> None:
        super().__init__()
        self.engine, self.effects = DetectionEngine(policy=Policy(mode=OrderMode.AUTO)), EffectLog()
        self._states: dict[int, dict[str, Any]] = {}
        self._waiting: list[Order] = []

    def log(self, /, step: int, **metrics: Any) -> None:
        super().log(step, **metrics)
        measured = self.logged[-1][1]
        row = {name: [measured[name]] for name in ("loss", "grad_norm", "lr")} | {"batch_index": [self.batches[-1]]}
        self._add(self.engine.feed(Rows.of([step], **row), restorable=self.restorable))
        self._states[step + 1] = self.engine.detectors_state()

    def take_order(self) -> Order | None:
        return self._waiting.pop(0) if self._waiting else None

    def open_segment(self, fork_step: int, reason: Any, order: Order | None = None, applied: Any = None) -> None:
        super().open_segment(fork_step, reason, order, applied)
        if order is not None:
            self._add(self.engine.fork(fork_step, "rollback", [], self._states[fork_step], obeyed=order.id))
            done: dict[str, Any] = {"rewound_to": fork_step, "skip_from": order.skip_from, "skip_to": order.skip_to}
            self._add(self.engine.order_applied(order.id, **done, compared=applied.get("compared")))

    def _add(self, effects: Any) -> None:
        for each in orders(self.effects.add(effects)):
            what = {name: getattr(each, name) for name in ("kind", "rewind_to", "skip_from", "skip_to")}
            self._waiting.append(Order(id=each.number, **what))
