"""What the collector asks before a person approves a rollback, and what the trainer answers. Pure."""

from dataclasses import dataclass
from typing import Any

from lossguard.orders import Order
from lossguard.protocol import is_tier
from lossguard.states import OrderKind

MAX_TEXTS = 3
"""Batches of which a text is reported: the first of those that are to be skipped."""
MAX_CHARACTERS = 200
"""Of each of these texts."""
MAX_SENTENCE = 500
"""Characters of a reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Could this rollback be carried out now?"""

    id: str
    """Each is answered once by a process."""
    step: int
    """The checkpoint to restore."""
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None

    @classmethod
    def from_wire(cls, body: Any) -> "Question | None":
        """None for what is no question that this release can answer."""
        try:
            order = Order.from_wire({**body, "id": 0, "kind": OrderKind.ROLLBACK, "rewind_to": body["step"]})
        except (KeyError, TypeError, ValueError):
            return None
        if not isinstance(body.get("id"), str) or order.rewind_to is None:
            return None
        changes = {name: getattr(order, name) for name in ("skip_from", "skip_to", "lr_scale")}
        return cls(id=body["id"], step=order.rewind_to, **changes)

    def as_order(self) -> Order:
        """The order that an approval would make of it."""
        return Order(
            id=0,
            kind=OrderKind.ROLLBACK,
            rewind_to=self.step,
            skip_from=self.skip_from,
            skip_to=self.skip_to,
            lr_scale=self.lr_scale,
            approved_by="a person",
        )

    def batches(self) -> range:
        """Those of which a text is reported."""
        first, end = self.skip_from or 0, self.skip_to or 0
        return range(first, max(first, min(end, first + MAX_TEXTS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the trainer found."""

    id: str
    """Of the question."""
    problem: str = ""
    """Why the checkpoint cannot be restored; empty if it is there and whole, as far as a quick look tells."""
    tier: str | None = None
    """Where it is kept (`lossguard.states.Tier`)."""
    refused: str = ""
    """Why the trainer would refuse the order; empty if it would carry it out."""
    texts: tuple[tuple[int, str], ...] = ()
    """Batches that are to be skipped, with their text: index, text."""

    def to_wire(self) -> dict[str, Any]:
        """As in a spool and in a report."""
        assert self.tier is None or is_tier(self.tier)
        return {
            "id": self.id,
            "problem": self.problem[:MAX_SENTENCE],
            "tier": self.tier,
            "refused": self.refused[:MAX_SENTENCE],
            "texts": [{"batch": batch, "text": text[:MAX_CHARACTERS]} for batch, text in self.texts],
        }
