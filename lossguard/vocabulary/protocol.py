"""The names and numbers that trainer and collector exchange (JSON under /api/v1).

Both sides import this module, so that they cannot disagree. It does no I/O. What users log becomes plain numbers and
strict JSON here: NumPy and torch are not imported, values are distinguished by their attributes.
"""

import dataclasses
import math
import numbers
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, cast

API = "/api/v1"

CAN_ROLL_BACK = "rollback"
"""Capability of a run that executes orders; only such runs get orders."""
CANNOT_ROLL_BACK = "no-rollback:"
"""Followed by why, in a clause: takes the place of CAN_ROLL_BACK where a guard has failed. Open orders still go to the
run, which refuses them."""
CANNOT_SAVE = "no-checkpoint:"
"""Followed by why, in a clause: capability of a run whose checkpoints cannot be saved at present."""
NO_HEARTBEAT = "no_heartbeat"
"""Capability of a run whose client reports nothing between two rows."""
CANNOT_SKIP = "rollback-without-skip"
"""Capability of a run that executes rollbacks, but cannot leave batches out: it is only rewound."""
CAN_APPLY = "remedy:"
"""Followed by a name: capability of a run whose loop has registered the remedy of that name."""
CAN_SCALE_LR = "lr-scale"
"""Capability of a run whose loop has read the factor that an order may set on its learning rate (`Guard.lr_scale`)."""
HAS_LIMITS = "limits:"
"""Followed by `lossguard.Limits` as text: capability of a run whose trainer carries out no order beyond them."""
ANSWERS_PREFLIGHT = "preflight"
"""Capability of a run whose trainer answers the collector's question before a person approves a rollback."""
IMPORTED = "imported"
"""Capability of a run of the past, which `lossguard import` delivers: it is detected on, and nobody is alerted."""
PROBE = "probe"
"""Kind of an event that announces no change: the next-token distribution of a prompt (see
lossguard.vocabulary.wire)."""
REMEDY = "remedy"
"""Kind of the event that a remedy has ended. It announces no change: what comes back with it must be seen."""
EXPECT = "expect"
"""Kind of the event by which a loop announces a pause: `next_report_in` in its details holds the seconds."""
SKIPPED_SAMPLE_RETURNED = "skipped_sample_returned"
"""Kind of the event that a sample which a rollback skipped was trained again. Its details: step, batch_index, rows (how
many of the batch), and order (the id of the order that skipped it)."""
DATA_NOT_REPEATED = "data_not_repeated"
"""Kind of the event that a batch came with other samples when it was read again. Its details: step, batch_index, rows.
No skip can leave samples out of such data."""
CHECKPOINT_UNCERTIFIED = "checkpoint_uncertified"
"""Kind of the event that a saved state gets no certificate, so that it is never restored. Its details: step, reason. It
announces no change."""
LEVEL_ACCEPTED = "level_accepted"
"""Kind of the event that a person accepted the level of the loss before its step as normal."""
ARMS = "arms"
"""Kind of the event that the arms of an order were tried (see lossguard.vocabulary.wire). It announces no change."""
MAX_PAUSE = 30 * 86_400.0
"""Seconds; a longer pause cannot be announced."""
SPOOL_HEADER = "Lossguard-Spool-Bytes"
"""Header of a report: the bytes in the trainer's spool that follow it. A collector may ignore it."""
PERSON_HEADER = "Lossguard-Person"
"""Header of an operator's request: the person who asks, percent-encoded UTF-8. The audit trail keeps it beside the
token, which is what counts: whoever has a token may name anybody."""
MAX_PERSON = 160
"""Characters."""
MAX_TAGS = 32
"""Maximum number of tags of a run."""
MAX_STEP_NOTE, MAX_STEP_NOTES = 2_000, 1_000
"""Characters of a note at a step; notes of a run."""
WIRE_HEADER, WIRE_VERSION = "Lossguard-Wire", "1"
"""Header of every request of the SDK and of every answer of a collector, and the version of the wire that it names.

Each side refuses another version: the SDK tries again until both are of one, and its steps wait in the spool."""


def is_pause(value: object) -> bool:
    """Return True if a pause of `value` seconds can be announced."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_PAUSE


RUN_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def is_run_id(value: str) -> bool:
    """Return True if `value` can be the id of a run."""
    return re.fullmatch(RUN_ID_PATTERN, value) is not None


def is_remedy(value: object) -> bool:
    """Return True if `value` can be the name of a remedy."""
    return isinstance(value, str) and re.fullmatch("[a-z0-9_]{1,64}", value) is not None


def remedies_in(capabilities: Iterable[str]) -> tuple[str, ...]:
    """The names of the remedies among the capabilities of a run."""
    names = (each.removeprefix(CAN_APPLY) for each in capabilities if each.startswith(CAN_APPLY))
    return tuple(filter(is_remedy, names))


def why_unguarded(capabilities: Iterable[str]) -> str:
    """Return why a run that could be rolled back cannot be any more, as a clause; empty if it can, or never could."""
    return _after(CANNOT_ROLL_BACK, capabilities)


def why_unsaved(capabilities: Iterable[str]) -> str:
    """Return why the checkpoints of a run cannot be saved at present, as a clause; empty if they can."""
    return _after(CANNOT_SAVE, capabilities)


def _after(prefix: str, capabilities: Iterable[str]) -> str:
    return next((each[len(prefix) :] for each in capabilities if each.startswith(prefix)), "")


def uncertified_state(
    events: Iterable[tuple[int, str, Mapping[str, Any]]], newest_segment: int, restorable: Iterable[int]
) -> tuple[int, str] | None:
    """Step of the newest state of a run that got no certificate, and the reason, up to the next one that has got it.

    `events`: segment, kind and details of each, in order; `newest_segment`: number of the one that led the live line
    last. A run that was rolled back or resumed has left that state.
    """
    found = [
        details
        for segment, kind, details in events
        if (segment, kind) == (newest_segment, CHECKPOINT_UNCERTIFIED) and is_step(details.get("step"))
    ]
    if not found or max(restorable, default=-1) > found[-1]["step"]:
        return None
    return found[-1]["step"], str(found[-1].get("reason", ""))


_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


def is_name(value: object) -> bool:
    """Return True if the collector accepts `value` as the name of a project, an event or a metric."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None and encodable(value)


def encodable(text: str) -> bool:
    """Return True if `text` can be encoded as UTF-8: lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


MAX_TEXT = 10_000
"""Characters of a command line."""
MAX_SHORT_TEXT, MAX_COMMIT, MAX_KIND = 256, 64, 64
"""Characters of other texts, such as a host; of a commit; of an event's kind."""
MAX_ITEMS, MAX_RESTORABLE_STEPS = 1024, 100_000
"""Devices, versions or capabilities of a run; its restorable steps."""
MAX_TIERS = 16
"""Places where the checkpoints of a run are kept."""
MAX_METRICS = 1_000
"""Metrics of a run, where LOSSGUARD_MAX_METRICS sets no other limit."""
MAX_DEPTH, MAX_NODES = 16, 20_000
"""Limits of JSON: levels of nesting; number of values, keys included."""


TIER_PATTERN = r"[a-z][a-z0-9_-]{0,31}"
"""The name of a place that keeps checkpoints: one of `states.Tier`, or one that a later release knows."""


def is_tier(value: object) -> bool:
    """Return True if `value` can be the name of a tier."""
    return isinstance(value, str) and re.fullmatch(TIER_PATTERN, value) is not None


def is_text(value: object, max_length: int = MAX_TEXT) -> bool:
    """Return True if every store holds `value` as a text of at most so many characters."""
    return isinstance(value, str) and len(value) <= max_length and "\x00" not in value and encodable(value)


def checked_json(value: Any, max_nodes: int = MAX_NODES) -> Any:
    """`value`, if the store accepts it: neither too deep nor too large, and without the characters that PostgreSQL
    refuses. Otherwise raises ValueError."""
    level, nodes = [value], 0
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > max_nodes:
            raise ValueError(f"at most {max_nodes} values are allowed here")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and ("\x00" in item or not (item.isascii() or encodable(item))):
                raise ValueError("text must not hold NUL or lone surrogates")
        if not below:
            return value
        level = below
    raise ValueError(f"at most {MAX_DEPTH} levels of nesting are allowed here")


MAX_STEP = 2**53
"""Steps and batch indices must be at least 0 and below this: JSON readers, JavaScript and float64 hold them exactly."""
MAX_TIME = 1e11
"""Unix seconds (the year 5138); times must be at least 0 and below this."""


def is_step(value: object) -> bool:
    """Return True if `value` can be a step or the index of a batch."""
    return type(value) is int and 0 <= value < MAX_STEP


def checked_step(value: SupportsIndex) -> int:
    """`value` as a step. Raises ValueError for one that is out of range, TypeError for what is no whole number."""
    step = int(operator.index(value))
    if not 0 <= step < MAX_STEP:
        raise ValueError(f"step {step} is below 0" if step < 0 else f"step {step} is not below 2**53")
    return step


def is_time(value: object) -> bool:
    """Return True if `value` can be a time in unix seconds."""
    return type(value) in (int, float) and 0 <= cast(float, value) < MAX_TIME


def checked_time(value: float) -> float:
    """`value` as a time in unix seconds. Raises ValueError for what is none."""
    if not is_time(value):
        raise ValueError(f"time {value!r:.100} must be unix seconds, from 0 to below 1e11")
    return value


MAX_COUNT = 2**63
"""Counts (`metrics.COUNTS`) must be at least 0 and below this."""


def is_count(value: float) -> bool:
    """Return True if `value` can be a count."""
    return 0 <= value < MAX_COUNT


def encode_number(value: float | None) -> float | str | None:
    """`value` for JSON, which has no NaN: non-finite numbers become "NaN", "Infinity" or "-Infinity"."""
    if value is None or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode_number(value: float | str | None) -> float | None:
    """Undo `encode_number`. Raises ValueError for any other string or type."""
    if isinstance(value, str):
        if value in NON_FINITE:
            return NON_FINITE[value]
        raise ValueError(f'{value!r} is not a number; non-finite numbers are written "NaN", "Infinity" or "-Infinity"')
    if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
        raise ValueError(f"{value!r} is not a number")
    try:
        return value if value is None else float(value)
    except OverflowError:
        raise ValueError("an integer this large is not a number of the wire") from None


MAX_EXACT_INT = 2**53
"""Larger integers may change when they are converted to a float."""


def plain(value: Any) -> float | int:
    """`value`, which is in host memory, as a Python number. Raises TypeError when it is not a scalar."""
    if isinstance(value, int):  # bool too
        if -MAX_EXACT_INT <= value <= MAX_EXACT_INT:
            return int(value)
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{value!r:.40} is not a number")
    try:
        return float(value.item() if hasattr(value, "item") else value)  # float() of a tensor with gradient warns
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a {type(value).__name__} is not a scalar") from None


def on_device(value: Any) -> bool:
    """True if reading `value` would make the caller wait for an accelerator."""
    return getattr(getattr(value, "device", None), "type", "cpu") != "cpu"


def plain_json(value: Any) -> Any:
    """A strictly JSON-able copy of `value`: non-finite numbers as in the protocol, unknown types as str()."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {storable(str(key)): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(each) for each in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, numbers.Real):  # NumPy's too
        return encode_number(plain(value))
    return storable(str(value))


def storable(text: str) -> str:
    """`text` without the halves of characters that Python makes of bytes that are no UTF-8, which JSON cannot carry,
    and without NUL, which no store accepts: its symbol replaces it."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\u2400")
