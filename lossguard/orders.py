"""Orders from the collector to the trainer."""

import sys
from dataclasses import dataclass, field
from typing import Any

from lossguard.order_signature import SIGNATURE, signed_text
from lossguard.states import OrderKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One intervention, as sent to the trainer."""

    id: int
    kind: OrderKind
    incident: int | None = None
    rewind_to: int | None = None
    """Restore the newest checkpoint at or before this step."""
    skip_from: int | None = None
    """First batch index that is never used again."""
    skip_to: int | None = None
    """First batch index after the skipped ones."""
    lr_scale: float | None = None
    """Factor on the schedule's learning rate from now on; None leaves it as it is."""
    remedies: tuple[str, ...] = ()
    """Names of the remedies to switch on (`Guard.remedy`). Older collectors send none."""
    reason: str = ""
    key: str | None = None
    """Random and globally unique, because a rebuilt store counts its ids from 1 again. Older collectors send none."""
    segment: str | None = None
    """Key of the segment about which the order was decided. Older collectors send neither it nor the next ones."""
    step: int | None = None
    """The newest step that the collector had then seen."""
    expires_at: float | None = None
    """Unix seconds, by the collector's clock, after which the order must not be carried out."""
    expires_step: int | None = None
    """The last step before which it may be carried out."""
    approved_by: str | None = None
    """The person, or rather the token, that approved or gave the order; None: the policy ordered it by itself."""
    signature: str | None = None
    """See `lossguard.order_signature`; None: it is not signed."""
    signed: str = field(default="", compare=False, repr=False)
    """What of the order, as it was received, a signature has to cover."""

    @property
    def identity(self) -> str | int:
        """Distinguishes this order from every other one."""
        return self.id if self.key is None else self.key

    def describe(self) -> str:
        """What a rollback changes and why, as the end of a sentence: "; batches 4 to 8 are skipped: loss spike"."""
        changes = ""
        if self.skip_from is not None and self.skip_to is not None:
            changes += f"; batches {self.skip_from} to {self.skip_to - 1} are skipped"
        if self.lr_scale is not None:
            changes += f"; the learning rate is to be multiplied by {self.lr_scale:g} (guard.lr_scale)"
        if self.remedies:
            changes += f"; remedies that are switched on: {', '.join(self.remedies)}"
        return f"{changes}: {self.reason}" if self.reason else changes

    def applied_at(self, step: int) -> dict[str, Any]:
        """What the spool records of a rollback that restored `step`, besides remedies."""
        applied: dict[str, Any] = {"rewound_to": step, "reason": self.reason}
        if self.skip_from is not None and self.skip_to is not None:
            applied |= {"skip_from": self.skip_from, "skip_to": self.skip_to}
        return applied if self.lr_scale is None else applied | {"lr_scale": self.lr_scale}

    @classmethod
    def from_wire(cls, body: dict[str, Any]) -> "Order":
        """Decode an order. Raises KeyError, TypeError or ValueError for one that cannot be executed.

        An unknown kind is an error; unknown fields are ignored.
        """
        _check(body, "id", _is_integer(body["id"]), "an integer")
        for name in ("rewind_to", "skip_from", "skip_to", "step", "expires_step"):
            _check(body, name, body.get(name) is None or _is_integer(body[name]), "an integer or null")
        for name in ("lr_scale", "expires_at"):
            _check(body, name, body.get(name) is None or _is_finite(body[name]), "a finite number or null")
        for name in ("key", "segment", "approved_by", SIGNATURE):
            _check(body, name, body.get(name) is None or _is_text(body[name]), "a string or null")
        _check(body, "reason", isinstance(body.get("reason", ""), str), "a string")
        remedies = body.get("remedies") or []
        _check(body, "remedies", isinstance(remedies, list) and all(map(_is_text, remedies)), "a list of names")
        known = {name: body[name] for name in cls.__slots__ if name in body}
        signed = {"signed": signed_text(body), "kind": OrderKind(body["kind"]), "remedies": tuple(remedies)}
        return cls(**known | signed)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check(body: dict[str, Any], name: str, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{name}={body[name]!r} is not {expected}")
