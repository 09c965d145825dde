"""Orders from the collector to the trainer, their signatures, and the skip ledger that they fill."""

import hmac
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.states import OrderKind

# Signatures: HMAC-SHA256 (RFC 2104) with a key that only the collector and the trainer have.
#
# A signature covers all that the trainer acts on, and the run: it fits no order that was altered, written into the
# database by somebody else, or sent to another run. An order's own key, not its signature, makes sure that it is
# carried out once.

SIGNATURE = "signature"
KEY, KEY_FILE = "LOSSGUARD_ORDER_KEY", "LOSSGUARD_ORDER_KEY_FILE"
MIN_KEY = 16
"""Characters."""
MAX_LINE = 120
"""Characters of a line in a terminal; a run's spool has the whole reason."""


def signed_text(order: Mapping[str, Any]) -> str:
    """Return the text of a sent order that its signature covers: every field that is set, in one spelling.

    A field that is null or an empty list is left out, so that a later release may add fields.
    """
    covered = {name: _spelled(value) for name, value in order.items() if name != SIGNATURE and value not in (None, [])}
    return json.dumps(covered, sort_keys=True, separators=(",", ":"))


def sign(text: str, run_id: str, key: str) -> str:
    """The signature of `signed_text` for an order to this run: 64 hexadecimal digits."""
    message = json.dumps([run_id, text]).encode()
    return hmac.new(key.encode(), message, "sha256").hexdigest()


def problem_with(signature: str | None, text: str, run_id: str, key: str) -> str | None:
    """Return why an order cannot be believed, or None."""
    if not signature:
        return f"it is not signed, and this trainer has an order key: give the collector the same {KEY}"
    expected = sign(text, run_id, key)
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        return f"its signature is wrong: it was altered, is another run's, or the collector has another {KEY}"
    return None


def read_key(environment: Mapping[str, str]) -> str | None:
    """The order key of LOSSGUARD_ORDER_KEY, or of the file that LOSSGUARD_ORDER_KEY_FILE names; None without one.

    Raises ConfigurationError, which never shows a key.
    """
    given, file = environment.get(KEY), environment.get(KEY_FILE)
    if given and file:
        raise ConfigurationError(f"set {KEY} or {KEY_FILE}, not both")
    if file:
        try:
            given = Path(file).read_text()
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or "it is no text"
            raise ConfigurationError(f"{KEY_FILE}={file!r:.200} cannot be read ({why})") from None
        return checked_key(given, KEY_FILE)
    return checked_key(given, KEY) if given else None


def checked_key(key: str, source: str) -> str:
    """The key without blanks around it. Raises ConfigurationError for one that can be guessed."""
    key = key.strip()
    if len(key) < MIN_KEY or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigurationError(
            f"{source}: an order key has at least {MIN_KEY} visible ASCII characters, no blanks: openssl rand -hex 32"
        )
    return key


def _spelled(value: Any) -> Any:
    """JSON has one kind of number: 12.0 is 12."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Orders, as the collector sends them.


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One intervention, as sent to the trainer."""

    id: int
    key: str
    """Random and globally unique, because a rebuilt store counts its ids from 1 again."""
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
    """Names of the remedies to switch on (`Guard.remedy`)."""
    reason: str = ""
    segment: str | None = None
    """Key of the segment about which the order was decided."""
    step: int | None = None
    """The newest step that the collector had then seen."""
    expires_at: float | None = None
    """Unix seconds, by the collector's clock, after which the order must not be carried out."""
    expires_step: int | None = None
    """The last step before which it may be carried out."""
    approved_by: str | None = None
    """The person, or rather the token, that approved or gave the order; None: the policy ordered it by itself."""
    signature: str | None = None
    """See `lossguard.vocabulary.orders`; None: it is not signed."""
    signed: str = field(default="", compare=False, repr=False)
    """The text of the received order that its signature has to cover."""

    def describe(self, to: int, since: int | None = None, later: str = "") -> str:
        """Return what a rollback did, and the first sentence of why, in one line of at most MAX_LINE characters.

        "rolled back 333 -> 300, skipping 59 batches (319-377): The loss stayed 1.65 nats above the expected one".
        `to`: the restored step; `since`: the step that the run had reached; `later`: what becomes of the skipped
        batches when the data comes again.
        """
        line = f"rolled back to step {to}" if since is None else f"rolled back {since} -> {to}"
        if self.skip_from is not None and self.skip_to is not None:
            count = self.skip_to - self.skip_from
            batches = "1 batch" if count == 1 else f"{count} batches"
            line += f", skipping {batches} ({self.skip_from}-{self.skip_to - 1}){later}"
        if self.lr_scale is not None:
            line += f", learning rate times {self.lr_scale:g} (guard.lr_scale)"
        if self.remedies:
            line += f", with {', '.join(self.remedies)}"
        if self.reason:
            line += f": {self.reason.partition('. ')[0]}"
        return shorten(line, MAX_LINE, placeholder=" ..")

    def applied_at(self, step: int) -> dict[str, Any]:
        """Return what the spool records of a rollback that restored `step`, besides remedies."""
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
        _check(body, "key", _is_text(body["key"]), "a string")
        for name in ("rewind_to", "skip_from", "skip_to", "step", "expires_step"):
            _check(body, name, body.get(name) is None or _is_integer(body[name]), "an integer or null")
        for name in ("lr_scale", "expires_at"):
            _check(body, name, body.get(name) is None or _is_finite(body[name]), "a finite number or null")
        for name in ("segment", "approved_by", SIGNATURE):
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


# The skip ledger: batch ranges that a run never uses again, each with its reason.


@dataclass(frozen=True, slots=True)
class Skip:
    """The batches [skip_from, skip_to)."""

    skip_from: int
    """First skipped batch index."""
    skip_to: int
    """First batch index after the skipped ones."""
    reason: str = ""


class Ledger:
    """Skipped ranges in ascending order."""

    def __init__(self, skips: Iterable[Skip] = ()) -> None:
        self.period: int | None = None
        """Number of batches after which the data begins again, if later passes skip the same batches; else None."""
        self.skips: list[Skip] = []
        for skip in skips:
            self.add(skip)

    def add(self, skip: Skip) -> None:
        """Add `skip`, unless it is known or empty."""
        if skip not in self.skips and skip.skip_from < skip.skip_to:
            self.skips.append(skip)
            self.skips.sort(key=lambda known: (known.skip_from, known.skip_to))

    def next_free(self, index: int) -> int:
        """The first batch index at or after `index` that no range covers, nor one of an earlier pass with a period.

        Where that would skip all of the data, only the ranges themselves count.
        """
        if self.period is not None:
            free = self._next_free_of_all_passes(index, self.period)
            if free < index + self.period:
                return free
        for skip in self.skips:  # sorted by their begin, so one pass is enough
            if skip.skip_from <= index < skip.skip_to:
                index = skip.skip_to
        return index

    def _next_free_of_all_passes(self, index: int, period: int) -> int:
        end = index + period
        free, before = index, -1
        while before != free < end:
            before = free
            for skip in self.skips:
                place = (free - skip.skip_from) % period
                if skip.skip_from <= free and place < skip.skip_to - skip.skip_from:
                    free += skip.skip_to - skip.skip_from - place
        return free

    def nth_free(self, number: int) -> int:
        """The batch index of the `number`-th batch, from 0, that no range covers: the batch of that step."""
        index, covered = number, 0
        for skip in self.skips:
            begin = max(skip.skip_from, covered)
            if begin > index:
                break
            index += max(0, skip.skip_to - begin)
            covered = max(covered, skip.skip_to)
        return index
