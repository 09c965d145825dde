"""The smallest checkpoints, batches and runs with orders, for tests of a guard."""

from collections.abc import Callable
from typing import Any

from lossguard import Order, OrderKind, Run
from lossguard.vocabulary.errors import CheckpointError, CheckpointTooOld
from lossguard.vocabulary.states import Refusal
from lossguard.vocabulary.wire import RestorableTier


class Memory:
    """Checkpoints in memory, of one list that stands for a model."""

    def __init__(self, model: list[int]) -> None:
        self.model = model
        self.saved: dict[int, tuple[list[int], dict[str, Any]]] = {}
        self.full = False
        self.pinned: list[list[int]] = []

    def steps(self) -> list[int]:
        return sorted(self.saved)

    def save(self, step: int, state: dict[str, Any]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.saved[step] = (list(self.model), state)

    def settle(self, wait: bool = False) -> bool:
        return False

    def pin(self, steps: Any) -> None:
        self.pinned.append(list(steps))

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        known = [each for each in self.steps() if each <= step]
        if not known:
            raise CheckpointError(f"no intact checkpoint at or before step {step}")
        if known[-1] < not_before:
            raise CheckpointTooOld(f"no checkpoint from step {not_before} to step {step} is intact")
        model, state = self.saved[known[-1]]
        self.model[:] = model
        return state

    def discard_after(self, step: int) -> None:
        self.saved = {each: saved for each, saved in self.saved.items() if each <= step}


class ScriptedRun(Run):
    """A run whose orders come at fixed boundaries: {number of the call: order}."""

    def __init__(self, orders: dict[int, Order] | None = None) -> None:
        super().__init__(id="r")
        self.orders = orders or {}
        self.calls, self.fails_at = 0, -1
        self.recorded: list[tuple[Any, ...]] = []
        self.restorable: list[int] = []
        self.tiers: list[RestorableTier] = []
        self.durations: list[tuple[str, float]] = []
        self.unguarded = ""
        """Why the run cannot be rolled back any more."""
        self.unsaved: list[str] = []
        """Why checkpoints could not be saved, each time that changed; empty: they could again."""
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.skips = True
        self.is_scaled = False
        self.announced: list[str | None] = []
        """The plan of each loop; None: only watched."""

    def announce(self, tell: Any, plan: Callable[[], str] | None = None) -> None:
        self.announced.append(None if plan is None else plan())

    def scales_loss(self) -> None:
        self.is_scaled = True

    def log_event(self, kind: str, details: Any, at: float | None = None) -> None:
        self.events.append((kind, dict(details)))

    def cannot_save(self, why: str) -> None:
        self.unsaved.append(why)

    def cannot_skip(self) -> None:
        self.skips = False

    def take_order(self) -> Order | None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the inbox has gone")
        return self.orders.pop(self.calls, None)

    def open_segment(self, fork_step: int, reason: Any, order: Order | None = None, applied: Any = None) -> None:
        self.recorded.append((str(reason), fork_step, order and order.id, applied))

    def add_seconds(self, metric: str, seconds: float) -> None:
        self.durations.append((metric, seconds))

    def accept(self, order: Order, detail: str = "") -> None:
        self.recorded.append(("accepted", order.id))

    def refuse(self, order: Order, detail: str, refusal: Refusal | None = None) -> None:
        self.recorded.append(("refused", order.id, detail))

    def can_roll_back(self) -> None:
        self.unguarded = ""

    def cannot_roll_back(self, why: str) -> None:
        self.unguarded = why

    def set_restorable(self, steps: Any, tiers: Any = ()) -> None:
        self.restorable, self.tiers = list(steps), list(tiers)


class Indices:
    def __getitem__(self, index: int) -> int:
        return index


def new_order(kind: OrderKind, id: int = 1, *, key: str = "", **fields: Any) -> Order:
    """An order with a key of its own, such as "k1"."""
    return Order(id=id, key=key or f"k{id}", kind=kind, **fields)


def rollback(id: int = 1, **fields: Any) -> Order:
    return new_order(OrderKind.ROLLBACK, id, **fields)
