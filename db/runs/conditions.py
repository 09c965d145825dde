"""A search for runs (`lossguard.vocabulary.run_search`) as a condition of a query, so that no run is read that does not
match; and the fields of every run, by which lists are searched and sorted, as SQL of one row of `runs`."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from db.dialects.base import Dialect
from db.models import Incident, Intervention, Run, RunSetting, RunStatus, Segment
from db.run_settings import key_of
from db.run_states import (
    NEEDS_A_PERSON,
    SILENT,
    is_silent_in_sql,
    is_unanswered,
    needs_a_person_in_sql,
    run_needs_a_person,
)
from lossguard.vocabulary.metrics import METRICS
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.run_search import (
    ARCHIVED,
    DEVICE,
    FALSE,
    METRIC,
    NULL,
    ORDERS,
    SETTING,
    TAG,
    TRUE,
    Condition,
    Operator,
    Word,
    number_of,
)
from lossguard.vocabulary.states import IncidentState, RunState

Test = sa.ColumnElement[bool]
IN_STATUS = frozenset(metric.name for metric in METRICS if metric.gauge)
"""Metrics whose newest value is in `RunStatus.latest_values`."""
TEXT = sa.type_coerce(RunSetting.text, sa.String)
NUMBER = sa.type_coerce(RunSetting.number, sa.Float(53))
NON_FINITE = ("NaN", "Infinity", "-Infinity")
TITLE: sa.ColumnElement[str] = sa.func.coalesce(sa.func.nullif(Run.name, ""), Run.id)
"""The name of a run, or its id."""
TEXTS: dict[str, sa.ColumnElement[str]] = {
    "project": sa.type_coerce(Run.project, sa.String),
    "name": TITLE,
    "id": sa.type_coerce(Run.id, sa.String),
    "host": sa.func.coalesce(Run.host, ""),
    "command": sa.func.coalesce(Run.command, ""),
    "note": sa.func.coalesce(Run.note, ""),
}
"""Texts by the name that a search has for them."""


def _count(table: type[Incident] | type[Intervention], condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    found = sa.select(sa.func.count()).select_from(table).where(table.run_pk == Run.pk, condition)
    return found.correlate(Run).scalar_subquery()


def _newest_step() -> sa.ColumnElement[Any]:
    """The newest step of a run, as reports said it, else as the segments have it; -1 without any."""
    reported = sa.select(RunStatus.step).where(RunStatus.run_pk == Run.pk).correlate(Run).scalar_subquery()
    newest = sa.select(sa.func.max(Segment.last_step)).where(Segment.run_pk == Run.pk).correlate(Run).scalar_subquery()
    return sa.func.coalesce(reported, newest, -1)


NUMBERS: dict[str, sa.ColumnElement[Any]] = {
    "steps": _newest_step() + 1,
    "incidents": _count(Incident, sa.true()),
    "open_incidents": _count(Incident, Incident.state != IncidentState.CLOSED),
    "interventions": _count(Intervention, sa.true()),
    "waiting": _count(Intervention, needs_a_person_in_sql()) + _count(Incident, is_unanswered()),
}
"""Counts by the name that a search has for them."""
FIELDS = frozenset({"state", TAG, DEVICE, ARCHIVED, *TEXTS, *NUMBERS})
"""Names of a search that every run has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Searches as SQL, for one database at one time."""

    dialect: Dialect
    metrics: Collection[str]
    """The names of the metrics of any run."""
    now: float
    """Unix seconds."""

    def is_of_steps(self, term: Condition) -> bool:
        """True if the condition may mean the newest value of a metric which only the steps have."""
        name = term.name.removeprefix(METRIC)
        is_setting = term.name in FIELDS or term.name.startswith(SETTING)
        return not is_setting and name in self.metrics and name not in IN_STATUS

    def term(self, term: Word | Condition) -> Test:
        """The condition; not for one of steps."""
        test = self._word(term.text) if isinstance(term, Word) else self._condition(term)
        return sa.not_(test) if term.excluded else test

    def by_setting(self, term: Condition) -> Test:
        """Return SQL that is true if a setting meets the condition; NULL if the run has no setting of this name."""
        if term.name.startswith(METRIC):
            return sa.cast(sa.null(), sa.Boolean)
        is_met = self._setting(replace(term, operator=Operator.EQUAL) if _is_not_equal(term) else term)
        return sa.case((has_setting(term.name), sa.not_(is_met) if _is_not_equal(term) else is_met))

    def _word(self, text: str) -> Test:
        part = text.lower()
        texts = sa.func.coalesce(Run.name, "") + "\n" + Run.project + "\n" + Run.id
        for name in ("host", "command", "note"):
            texts = texts + "\n" + TEXTS[name]
        listed = self.dialect.contains(TEXT, part)
        return sa.or_(self.dialect.contains(texts, part), has(TAG, listed), has(DEVICE, listed))

    def _condition(self, term: Condition) -> Test:
        if _is_not_equal(term):
            return sa.not_(self._condition(replace(term, operator=Operator.EQUAL)))
        name = term.name
        if name == "state":
            return self._state(term)
        if name == ARCHIVED:
            is_archived = Run.archived_at.is_not(None)
            return _any(is_it for is_it, value in ((is_archived, True), (~is_archived, False)) if term.holds(value))
        if name in (TAG, DEVICE):
            return has(name, self._text(term, TEXT))
        if name in TEXTS:
            return self._text(term, TEXTS[name])
        if name in FIELDS:
            return _number(term, NUMBERS[name])
        return self._setting_or_metric(term)

    def _state(self, term: Condition) -> Test:
        known = [(Run.state == state, state.value) for state in RunState]
        known += [(is_silent_in_sql(self.now), SILENT), (run_needs_a_person(), NEEDS_A_PERSON)]
        return _any(is_it for is_it, state in known if term.holds(state))

    def _text(self, term: Condition, text: sa.ColumnElement[Any]) -> Test:
        if term.operator in ORDERS:
            return sa.false()
        wanted = term.value.lower()
        if term.operator is Operator.EQUAL:
            return self.dialect.lower(text) == wanted
        return self.dialect.contains(text, wanted)

    def _setting_or_metric(self, term: Condition) -> Test:
        metric = term.name.removeprefix(METRIC)
        if term.name.startswith(SETTING) or metric not in self.metrics:
            return sa.false() if term.name.startswith(METRIC) else self._setting(term)
        if term.name.startswith(METRIC):
            return self._metric(term, metric)
        return sa.or_(self._setting(term), sa.and_(self._metric(term, metric), ~has_setting(metric)))

    def _setting(self, term: Condition) -> Test:
        constants = [words[0] for words in (TRUE, FALSE, NULL) if term.value.lower() in words]
        passes = sa.or_(self._text(term, TEXT), TEXT.in_(constants), _number(term, NUMBER))
        return has_setting(term.name.removeprefix(SETTING), passes)

    def _metric(self, term: Condition, name: str) -> Test:
        """Non-finite numbers are texts there."""
        tests = [_number(term, self.dialect.number(RunStatus.latest_values, name))]
        if non_finite := [one for one in NON_FINITE if term.holds(decode_number(one))]:
            tests.append(self.dialect.member(RunStatus.latest_values, name).in_(non_finite))
        return _row_of_run(RunStatus.run_pk == Run.pk, sa.or_(*tests))


def has(name: str, *tests: Test, table: Any = RunSetting) -> Test:
    """Return SQL that is true if a run has a value of exactly this name (`RunSetting.name`) that passes."""
    return _row_of_run(table.run_pk == Run.pk, table.key == key_of(name), table.name == name, *tests)


def has_setting(name: str, *tests: Test) -> Test:
    """Return SQL that is true if a setting passes: that of this path, or without one each whose path ends so."""
    ending = f".{name}"
    end = sa.func.substr(RunSetting.name, sa.func.length(RunSetting.name) - len(ending) + 1)
    is_meant = sa.or_(RunSetting.name == SETTING + name, ~has(SETTING + name, table=aliased(RunSetting)))
    is_named = sa.and_(RunSetting.key == key_of(name), end == ending, is_meant)
    return _row_of_run(RunSetting.run_pk == Run.pk, is_named, *tests)


def has_tag(tag: str) -> Test:
    """Return SQL that is true if a run has this tag."""
    return has(TAG, RunSetting.text == tag)


def _row_of_run(*tests: Test) -> Test:
    """Return SQL that is true if a row passes.

    OFFSET lets PostgreSQL look it up for each run that a page reads: its planner would join the whole table first.
    """
    return sa.select(sa.literal(1)).where(*tests).correlate(Run).offset(0).exists()


def _is_not_equal(term: Condition) -> bool:
    return term.operator is Operator.NOT_EQUAL


def _number(term: Condition, expression: sa.ColumnElement[Any]) -> Test:
    number = number_of(term.value)
    if number is None or math.isnan(number):
        return sa.false()
    operator = term.operator if term.operator in ORDERS else Operator.EQUAL
    return expression.op(str(operator), is_comparison=True)(sa.literal(number, sa.Float(53)))


def _any(tests: Iterable[Test]) -> Test:
    return sa.or_(sa.false(), *tests)
