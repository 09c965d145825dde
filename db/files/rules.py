"""Rules for each column of an imported run: those of `lossguard.vocabulary.protocol` for a request."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from db.models import (
    BESIDE,
    Base,
    DetectionState,
    Event,
    Incident,
    Intervention,
    JsonList,
    JsonObject,
    Order,
    Run,
    Segment,
    UnixTime,
)
from db.records.arms import TriedArm
from db.records.step_notes import StepNote
from lossguard.vocabulary import states
from lossguard.vocabulary.protocol import (
    MAX_ITEMS,
    MAX_KIND,
    MAX_NODES,
    MAX_RESTORABLE_STEPS,
    MAX_SHORT_TEXT,
    MAX_STEP_NOTE,
    MAX_TAGS,
    MAX_TEXT,
    MAX_TIERS,
    PROBE,
    checked_json,
    is_name,
    is_remedy,
    is_step,
    is_text,
    is_tier,
    is_time,
)
from lossguard.vocabulary.wire import Probe

MAX_REASON = 4 * MAX_TEXT
"""Characters of a reason: the collector puts sentences of its own around the text of an operator."""
MAX_OWN_NODES = 50 * MAX_NODES
"""Values in what the collector itself stored: the verdict of a replay holds curves, the detection state arrays."""


class BadRecord(ValueError):
    """A description that does not fit the store; the message says where."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a value."""

    fits: Callable[[Any], bool]
    what: str
    """The condition as the end of "it must be .."."""


def _object(max_nodes: int = MAX_NODES) -> Rule:
    def fits(value: Any) -> bool:
        try:
            return isinstance(value, dict) and checked_json(value, max_nodes) is value
        except ValueError:
            return False

    return Rule(fits, f"a JSON object of at most 16 levels and {max_nodes:,} values")


def _list_of(rule: Rule, max_length: int) -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= max_length and all(map(rule.fits, value))

    return Rule(fits, f"a list of at most {max_length:,} entries, each {rule.what}")


def _one_of(values: type[StrEnum]) -> Rule:
    return Rule(lambda value: value in tuple(values), f"one of {', '.join(values)}")


def _text(max_length: int) -> Rule:
    return Rule(lambda value: is_text(value, max_length), f"a text of at most {max_length:,} characters")


def _name(max_length: int = 128) -> Rule:
    return Rule(
        lambda value: is_name(value) and len(value) <= max_length, f"a name of 1 to {max_length} printable characters"
    )


def _are_versions(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_ITEMS and all(map(SHORT.fits, [*value, *value.values()]))


def _is_tier(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"tier", "steps", "load_seconds", "save_seconds"}:
        return False
    seconds = [value.get("load_seconds"), value.get("save_seconds")]
    return (
        is_tier(value.get("tier"))
        and _list_of(STEP, MAX_RESTORABLE_STEPS).fits(value.get("steps"))
        and all(each is None or is_time(each) for each in seconds)
    )


def _is_small(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_finite(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**63)


STEP = Rule(is_step, "a whole number from 0, below 2**53")
SMALL = Rule(_is_small, "a whole number from 0, below 2**31")
TIME = Rule(is_time, "a time in unix seconds, before the year 5138")
NUMBER = Rule(_is_finite, "a finite number")
SHORT = _text(MAX_SHORT_TEXT)
REMEDY = Rule(is_remedy, "the name of a remedy")
TIER = Rule(_is_tier, "a tier with its steps, and the seconds that a load and a save take")

OF_COLUMN: Mapping[tuple[type[Base], str], Rule] = {
    (Run, "project"): _name(),
    (Run, "state"): _one_of(states.RunState),
    (Run, "command"): _text(MAX_TEXT),
    (Run, "devices"): _list_of(SHORT, MAX_ITEMS),
    (Run, "versions"): Rule(_are_versions, f"an object of at most {MAX_ITEMS:,} names and versions"),
    (Run, "capabilities"): _list_of(SHORT, MAX_ITEMS),
    (Run, "tags"): _list_of(_name(), MAX_TAGS),
    (Run, "note"): _text(MAX_TEXT),
    (Run, "restorable_steps"): _list_of(STEP, MAX_RESTORABLE_STEPS),
    (Run, "restorable_tiers"): _list_of(TIER, MAX_TIERS),
    (Segment, "key"): _name(),
    (Segment, "live_order"): Rule(lambda value: value == BESIDE or _is_small(value), "a whole number from -1"),
    (Segment, "reason"): _one_of(states.SegmentReason),
    (Incident, "kind"): _one_of(states.IncidentKind),
    (Incident, "state"): _one_of(states.IncidentState),
    (Incident, "outcome"): _one_of(states.Outcome),
    (Incident, "signal"): _name(64),
    (Incident, "verdict"): _object(MAX_OWN_NODES),
    (Intervention, "kind"): _one_of(states.OrderKind),
    (Intervention, "state"): _one_of(states.InterventionState),
    (Intervention, "remedies"): _list_of(REMEDY, MAX_ITEMS),
    (Order, "kind"): _one_of(states.OrderKind),
    (Order, "state"): _one_of(states.OrderState),
    (Order, "remedies"): _list_of(REMEDY, MAX_ITEMS),
    (Event, "key"): _name(),
    (Event, "kind"): _name(MAX_KIND),
    (StepNote, "text"): _text(MAX_STEP_NOTE),
    (TriedArm, "arm"): _one_of(states.Arm),
    (DetectionState, "state"): _object(MAX_OWN_NODES),
}
"""The columns whose type says too little."""


def rule_of(model: type[Base], name: str) -> Rule:
    """The rule for a column, where its value is not null."""
    return OF_COLUMN.get((model, name)) or _by_type(model.__table__.columns[name].type)


def _by_type(kind: sa.types.TypeEngine[Any]) -> Rule:
    match kind:
        case UnixTime():
            return TIME
        case JsonObject():
            return _object()
        case JsonList():
            return _list_of(SHORT, MAX_ITEMS)
        case sa.String(length=length):
            return _text(length or MAX_REASON)
        case sa.BigInteger():
            return STEP
        case sa.Integer():
            return SMALL
    return NUMBER


def check_row(model: type[Base], row: Any, where: str, names: list[str]) -> None:
    """Raises BadRecord unless `row` is an object with such columns. One that an earlier release lacked may be missing
    if it may be null."""
    if not isinstance(row, dict) or not set(row) <= set(names):
        raise BadRecord(f"{where}: this must be an object with the fields {', '.join(names)}")
    for name in names:
        value, rule = row.get(name), rule_of(model, name)
        if not (model.__table__.columns[name].nullable if value is None else rule.fits(value)):
            raise BadRecord(f"{where}.{name}: {str(value)[:80]!r} does not fit: it must be {rule.what}")
    if model is Event and row["kind"] == PROBE:
        try:
            Probe.from_details(row["details"])
        except ValueError as error:
            raise BadRecord(f"{where}.details: {error}") from None
