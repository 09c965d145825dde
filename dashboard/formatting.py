"""Values and times as people read them. Pure: values in, text out."""

import html
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, TypeGuard
from zoneinfo import ZoneInfo

import numpy as np

from dashboard.axes import Floats
from db.models import Incident, Intervention, Order, Run
from db.run_states import rewind_target
from lossguard.vocabulary import wording
from lossguard.vocabulary.metrics import short_name
from lossguard.vocabulary.protocol import NON_FINITE
from lossguard.vocabulary.states import KINDS, ORDER_SENTENCES, IncidentKind, IncidentState, OrderKind
from lossguard.vocabulary.wording import form, recovery_sentence


def incident_kind(kind: str) -> str:
    """Return a kind of incidents in words, also one that this version does not know."""
    return KINDS[kind].label if kind in KINDS else words(kind)


def words(name: str) -> str:
    """An identifier as words: "learning_rate" is "learning rate"."""
    return name.replace("_", " ")


def number(value: Any) -> str:
    """Four significant digits, "NaN" or "infinity"; a dash for what is no number.

    Non-finite values may be encoded as in JSON.
    """
    value = NON_FINITE.get(value) if isinstance(value, str) else value
    if not _is_number(value):
        return "-"
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # JSON has no bounds
        return f"{Decimal(value):.3e}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3e}"


def two_digits(value: Any) -> str:
    """Two significant digits, for a standard deviation: more would not be significant."""
    return f"{value:.2g}" if _is_float(value) else number(value)


def power_of_ten(value: float) -> str:
    """Three digits and a power of ten, as plotly writes it: "3.15 x 10<sup>23</sup>"."""
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits} x 10<sup>{int(exponent)}</sup>"


def scientific(value: float | None) -> str:
    """Three digits and an exponent: "3.15e+23"; a dash when there is none."""
    return "-" if value is None else f"{value:.2e}"


def percent(share: float | None) -> str:
    """A percentage with one decimal; a number where a percentage would have many digits."""
    return f"{share:.1%}" if share is not None and abs(share) < 1e4 else number(share)


def abbreviated(value: float | None, digits: int = 3) -> str:
    """Three digits and a unit: "6.55 M"; a dash when there is none."""
    return wording.abbreviated(value, digits) if _is_float(value) and abs(value) < 1e15 else number(value)


def count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def short_count(value: int | None) -> str:
    """Return a short text of a count: three digits, and a unit from a million million on."""
    return count(value) if value is None or abs(value) < 1e12 else abbreviated(value)


def duration(seconds: float | None) -> str:
    """The two largest units: "1 h 05 min"."""
    if not _is_float(seconds):
        return number(seconds)
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    days = whole // 86400
    return f"{days} d {whole % 86400 // 3600:02d} h" if days < 10_000 else f"{number(days)} d"


def seconds(value: float | None) -> str:
    """A time in three digits: "12 ms", "1.23 s"; in the units of `duration` where seconds would have more digits."""
    if value is None:
        return "-"
    if value >= 999.5:
        return duration(value)
    return f"{value * 1000:.3g} ms" if abs(value) < 0.9995 else f"{value:.3g} s"


def steps_label(total: int | None) -> str:
    return "Steps" if total is None else f"Steps of {short_count(total)}"


def ago(seconds: float) -> str:
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"


def run_title(run: Run) -> str:
    return visible(f"{run.project} / {run.name or run.id}")


def run_label(run: Run) -> str:
    """The title, with the id beside a name: two runs may have one name."""
    return run_title(run) + (f" ({run.id})" if run.name else "")


def hardware(run: Run) -> str:
    """Devices, equal ones counted: "8 x NVIDIA H100"."""
    counted = Counter(map(str, run.devices))
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())


DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Marks that change the direction of the text after them: with one in its name, a run could reverse what follows."""


def visible(text: str) -> str:
    """Return the text with marks of direction as escapes."""
    return DIRECTIONS.sub(lambda match: ascii(match[0])[1:-1], text)


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, and put it on one line."""
    return escape_markdown_verbatim(" ".join(text.split()))


AUTOLINKS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=[\w-])", re.IGNORECASE)
"""Places within URLs, host names and e-mail addresses, which Markdown makes links of, however their text is escaped."""
WORD_JOINER = "\u2060"


def escape_markdown_verbatim(text: str) -> str:
    """Escape text for Markdown, keep its white space, and break up addresses by an invisible character."""
    broken = AUTOLINKS.sub(WORD_JOINER, visible(text))
    return re.sub(r"([\\`*_{}\[\]()#+!|$~<>:&-])", r"\\\1", broken)


def escape_plotly(text: str) -> str:
    """Escape text for plotly, which interprets a few tags of HTML and its own %{..}."""
    return html.escape(visible(text), quote=False).replace("%{", "%&#123;")


def plural(count: int, noun: str, several: str | None = None) -> str:
    """Return a text such as "1 step" or "2 batches", with the count as `short_count` writes it."""
    return f"{short_count(count)} {form(count, noun, several)}"


def first_named(names: Sequence[str], count: int) -> list[str]:
    """The first `count` names, and how many more there are."""
    more = len(names) - count
    return [*names[:count], *([f"and {more:,} more"] if more > 0 else [])]


def incident_sentence(incident: Incident) -> str:
    """Onset, detection, peak and end of an incident in one sentence."""
    if incident.kind == IncidentKind.STALL:
        return _stall_sentence(incident)
    parts = [f"Onset at step {incident.onset_step:,}, detected at {incident.detected_step:,}"]
    if incident.peak_step is not None:
        peak = f"{short_name(incident.signal)} {number(incident.details.get('peak_value'))}"
        parts.append(f"peak at {incident.peak_step:,} ({peak})")
    parts.append("still in progress" if incident.end_step is None else f"ended at {incident.end_step:,}")
    recovery = recovery_sentence(incident.kind, incident.state, incident.details)
    return " ".join(filter(None, [", ".join(parts) + ".", recovery]))


def _stall_sentence(incident: Incident) -> str:
    silence = duration(incident.details.get("peak_value"))
    if incident.state != IncidentState.CLOSED:
        return f"No step after step {incident.onset_step:,}; found after {silence}, still in progress."
    end_step = incident.end_step or 0
    end = f" until step {end_step:,}" if end_step > incident.onset_step else ""  # else the run ended
    return f"No step after step {incident.onset_step:,} for {silence}{end}."


def stalled_for(incident: Incident, now: float) -> float | None:
    """Seconds without a step: of a stall that goes on, until now."""
    found: float | None = incident.details.get("peak_value")
    if found is None or incident.state == IncidentState.CLOSED:
        return found
    return found + max(0.0, now - incident.opened_at)


def expectation(details: Mapping[str, Any]) -> str:
    """Return the expected value of an incident's signal with its standard deviation, if known; else a dash."""
    expected, scale = details.get("expected"), details.get("scale")
    if (expected, scale) in ((None, None), (0, 0)):  # the detection stores zeros before it has a baseline
        return "-"
    return number(expected) if scale == 0 else f"{number(expected)} ± {two_digits(scale)}"


def intervention_sentence(intervention: Intervention, order: Order | None) -> str:
    """Describe in one sentence what an intervention does or did."""
    if intervention.kind == OrderKind.ROLLBACK:
        return _rollback_sentence(intervention, order)
    return ORDER_SENTENCES.get(intervention.kind, "")


def _rollback_sentence(intervention: Intervention, order: Order | None) -> str:
    actual = rewind_target(intervention, order)
    sentence = f"Rewind to step {count(actual)}"
    if actual != intervention.rewind_to:
        sentence += f" (step {count(intervention.rewind_to)} was requested)"
    if intervention.skip_from is not None and intervention.skip_to is not None:
        num_skipped = plural(intervention.skip_to - intervention.skip_from, "batch", "batches")
        sentence += f", skip {num_skipped} ({wording.batches(intervention.skip_from, intervention.skip_to)})"
    if intervention.lr_scale is not None:
        sentence += f", learning rate x {intervention.lr_scale:g}"
    if intervention.remedies:
        sentence += f", switch on {', '.join(map(str, intervention.remedies))}"
    return sentence + "."


def details(values: Mapping[str, Any]) -> str:
    """Details of an event: "lr: 0.0003, by: schedule"."""
    return ", ".join(f"{name}: {number(value) if _is_number(value) else value}" for name, value in values.items())


def bullet_list(reasons: Sequence[str]) -> str:
    """A list in Markdown, with its items escaped."""
    return "\n".join(f"- {escape_markdown(reason)}" for reason in reasons)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_float(value: Any) -> TypeGuard[float]:
    """True for a finite number that is no integer beyond any float."""
    return _is_number(value) and -sys.float_info.max <= value <= sys.float_info.max


DAY = 86_400.0
EARLIEST = datetime(1, 1, 1, tzinfo=UTC).timestamp() + DAY
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp() - DAY
"""Unix seconds of the first and the last time that is a date in every time zone."""


def zone(name: str | None) -> tzinfo:
    """The time zone of this name; UTC where this machine knows no such zone."""
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):  # unknown, malformed, or the name of a folder
        return UTC


def moment(seconds: float, where: tzinfo, *, now: float | None = None) -> str:
    """Date and time; only hour and minute when `now` is on the same day."""
    then = local_time(seconds, where)
    today = now is not None and local_time(now, where).date() == then.date()
    return then.strftime("%H:%M") if today else then.isoformat(" ", "seconds")[:19]


def local_time(seconds: float, where: tzinfo) -> datetime:
    """Unix seconds as a date in a time zone; the nearest one that a calendar has, where a clock was far off."""
    if math.isnan(seconds):
        seconds = EARLIEST
    return datetime.fromtimestamp(min(max(seconds, EARLIEST), LATEST), where)


def on_clock(milliseconds: Floats, where: tzinfo) -> Floats:
    """Milliseconds since 1970, shifted to local time: plotly's date axes have no time zones."""
    offsets = [local_time(each / 1000, where).utcoffset() or timedelta() for each in milliseconds]
    return milliseconds + 1000 * np.array([offset.total_seconds() for offset in offsets], dtype=np.float64)
