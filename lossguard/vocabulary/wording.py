"""Counts, numbers and times as people read them. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, SupportsFloat

from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import MAY_RECOVER, IncidentState


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


def recovery_odds(lasting: float) -> str:
    """The clause that says how often a loss recovers by itself that lasts with this probability."""
    tenths = round(10 * (1 - lasting))
    rare = {0: "in fewer than 1 of 20 such cases", 10: "in more than 19 of 20 such cases"}
    return rare.get(tenths, f"in about {tenths} of 10 such cases")


def incident_standing(state: str, outcome: str | None, details: Mapping[str, Any], *, is_held: bool = False) -> str:
    """Return the standing of an incident and, once it is over, its outcome.

    `is_held`: the run waits at a hold because of it.
    """
    if state != IncidentState.CLOSED:
        return "held" if is_held else state
    successor = details.get("superseded_by")
    return outcome or state if successor is None else f"superseded by #{successor}"


def recovery_sentence(kind: str, state: str, details: Mapping[str, Any]) -> str | None:
    """Return whether an open incident is likely to recover by itself; None where nobody asks."""
    if kind not in MAY_RECOVER or state == IncidentState.CLOSED:
        return None
    lasting = details.get("lasting_probability")
    if lasting is None:
        return "Too little is known to say whether it recovers by itself."
    if lasting == 1:
        return "It does not recover by itself: a value is not finite."
    return f"It recovers by itself {recovery_odds(lasting)}."


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


def apart(first: float, second: float) -> tuple[str, str]:
    """Two values with three significant digits, or with as many more, up to six, as tell them apart."""
    for digits in (3, 4, 5, 6):
        texts = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def abbreviated(value: float, digits: int = 3) -> str:
    """Three digits and a unit, such as "15.2 M"; `value` is finite."""
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


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
    """Return how long ago a time was (unix seconds)."""
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over independent values, such as those of several seeds, with its standard error."""

    mean: float
    standard_error: float
    """Sample standard deviation / sqrt(number of values); NaN of a single value."""

    @classmethod
    def of(cls, values: Iterable[SupportsFloat]) -> Self:
        """NaN if there are no values, if one of them is not finite, or if they are too large to be summed."""
        numbers = [float(value) for value in values]
        count = len(numbers)
        try:
            mean = math.fsum(numbers) / count
            squares = math.fsum((value - mean) ** 2 for value in numbers)
        except (OverflowError, ValueError, ZeroDivisionError):
            return cls(math.nan, math.nan)
        if not math.isfinite(mean):
            return cls(math.nan, math.nan)
        return cls(mean, math.sqrt(squares / (count - 1) / count) if count > 1 else math.nan)

    def __str__(self) -> str:
        """Format with two significant digits of the error, as in "1.953 +- 0.012"."""
        if not self.standard_error > 0.0:
            return f"{self.mean:.4g}"
        decimals = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{decimals}f} +- {self.standard_error:.{decimals}f}"
