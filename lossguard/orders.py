"""What the collector asks of a trainer."""

from dataclasses import dataclass
from typing import Any

from lossguard.protocol import OrderKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One intervention, as sent to the trainer."""

    id: int
    kind: OrderKind
    incident: int | None = None
    rewind_to: int | None = None
    """Restore the newest checkpoint at or before this step."""
    skip_from: int | None = None
    """First batch index never to be used again."""
    skip_to: int | None = None
    """First batch index that may be used again."""
    lr_scale: float | None = None
    """Factor on the schedule's learning rate from now on; None leaves it."""
    reason: str = ""

    @classmethod
    def from_wire(cls, body: dict[str, Any]) -> "Order":
        """Raises ValueError for a kind this version does not know; unknown fields are left alone."""
        known = {name: body[name] for name in cls.__slots__ if name in body}
        return cls(**{**known, "kind": OrderKind(body["kind"])})
