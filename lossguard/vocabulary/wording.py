"""Counts, numbers and times as people read them. Pure."""

import math
from collections.abc import Iterable
from typing import Any

from lossguard.vocabulary.protocol import decode_number


def plural(count: int, noun: str, several: str | None = None) -> str:
    return f"{count:,} {form(count, noun, several)}"


def form(count: int, noun: str, several: str | None = None) -> str:
    """The noun as it stands after the count; `several`: after other counts than one, if that is more than an s."""
    return noun if count == 1 else several or f"{noun}s"


def never_restored(step: int, reason: str, restorable: Iterable[int]) -> str:
    """The clause that says that the state of a step got no certificate, and where the run can go back to."""
    newest = max(restorable, default=None)
    left = "no checkpoint is left to return to" if newest is None else f"the newest good one is step {newest}"
    return f"the state at step {step} is never restored: {reason}; {left}"


UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))
MISSING = "-"


def number(value: Any) -> str:
    """A value of a metric as the API sends it, with four significant digits."""
    try:
        decoded = decode_number(value)
    except ValueError:
        return str(value)
    if decoded is None:
        return MISSING
    if math.isnan(decoded):
        return "NaN"
    return f"{decoded:.4g}"


def count(value: int | None) -> str:
    """A step or another whole number, with a comma between thousands."""
    return MISSING if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Such as "42 s", "3.5 min" or "2.1 d"."""
    for length, unit in UNITS:
        if seconds >= length:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "s" else f"{amount:.1f} {unit}"
    return "0 s"


def ago(then: float | None, now: float) -> str:
    """How long ago a time was (unix seconds)."""
    return MISSING if then is None else f"{duration(max(0.0, now - then))} ago"


def size(num_bytes: int) -> str:
    """Such as "1.5 GiB"."""
    amount, unit = float(num_bytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def batches(skip_from: int | None, skip_to: int | None) -> str:
    """A range of batches that a rollback leaves out."""
    if skip_from is None or skip_to is None or skip_to <= skip_from:
        return MISSING
    return f"{skip_from:,} to {skip_to - 1:,}"
