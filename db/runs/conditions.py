"""A search for runs (`lossguard.vocabulary.run_search`) as a condition of a query, so that no run is read that does not
match."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import sqlalchemy as sa

from db.dialects.base import Dialect, ValueTest
from db.models import Run, RunStatus
from db.run_states import SILENT, is_silent_in_sql
from db.runs import fields
from lossguard.vocabulary.metrics import METRICS
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.run_search import (
    ARCHIVED,
    FALSE,
    METRIC,
    ORDERS,
    SETTING,
    TRUE,
    Condition,
    Operator,
    Search,
    Word,
    number_of,
)
from lossguard.vocabulary.states import RunState

Test = sa.ColumnElement[bool]
IN_STATUS = frozenset(metric.name for metric in METRICS if metric.gauge)
"""Metrics whose newest value is in `RunStatus.latest_values`."""
NON_FINITE = ("NaN", "Infinity", "-Infinity")
NULL = ("none", "null")
FIELDS = frozenset({"state", "tag", "device", ARCHIVED, *fields.TEXTS, *fields.numbers()})
"""Names of a search that every run has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Searches as SQL, for one database at one time."""

    dialect: Dialect
    metrics: Collection[str]
    """The names of the metrics of any run."""
    now: float
    """Unix seconds."""

    def all_of(self, search: Search) -> list[Test]:
        """One condition for each term, without those that only the steps answer (`of_steps`)."""
        left = self.of_steps(search)
        return [self._term(term) for term in search.terms if term not in left.terms]

    def tagged(self, tag: str) -> Test:
        """Whether a run has this tag."""
        return self._tag(ValueTest(exactly=frozenset([tag])))

    def of_steps(self, search: Search) -> Search:
        """The terms that may mean the newest value of a metric which only the steps have."""
        return replace(search, terms=tuple(term for term in search.terms if self._is_of_steps(term)), problems=())

    def _is_of_steps(self, term: Word | Condition) -> bool:
        if isinstance(term, Word) or term.name in FIELDS or term.name.startswith(SETTING):
            return False
        name = term.name.removeprefix(METRIC)
        return name in self.metrics and name not in IN_STATUS

    def _term(self, term: Word | Condition) -> Test:
        test = self._word(term.text) if isinstance(term, Word) else self._condition(term)
        return sa.not_(test) if term.excluded else test

    def _word(self, text: str) -> Test:
        part = text.lower()
        texts = sa.func.coalesce(Run.name, "") + "\n" + Run.project + "\n" + Run.id
        for name in ("host", "command", "note"):
            texts = texts + "\n" + fields.TEXTS[name]
        test = ValueTest(text=part)
        return sa.or_(self.dialect.contains(texts, part), self._tag(test), self.dialect.json.element(Run.devices, test))

    def _condition(self, term: Condition) -> Test:
        if term.operator is Operator.NOT_EQUAL:
            return sa.not_(self._positive(replace(term, operator=Operator.EQUAL)))
        return self._positive(term)

    def _positive(self, term: Condition) -> Test:
        name, test = term.name, value_test(term)
        if name == "state":
            return self._state(term)
        if name == ARCHIVED:
            is_archived = Run.archived_at.is_not(None)
            return _any(is_it for is_it, value in ((is_archived, True), (~is_archived, False)) if term.holds([value]))
        if name == "tag":
            return self._tag(test)
        if name == "device":
            return self.dialect.json.element(Run.devices, test)
        if name in fields.TEXTS:
            return self._text(fields.TEXTS[name], test)
        if name in FIELDS:
            return _number(fields.numbers()[name], test)
        return self._setting_or_metric(term, test)

    def _state(self, term: Condition) -> Test:
        known = [(Run.state == state, state.value) for state in RunState]
        known += [(is_silent_in_sql(self.now), SILENT), (fields.needs_a_person(), fields.NEEDS_A_PERSON)]
        return _any(is_it for is_it, state in known if term.holds([state]))

    def _tag(self, test: ValueTest) -> Test:
        json = self.dialect.json
        of_the_loop = sa.and_(Run.tags.is_(None), json.element(Run.config, test, of="tags"))
        return sa.or_(json.element(Run.tags, test), of_the_loop)

    def _text(self, expression: sa.ColumnElement[str], test: ValueTest) -> Test:
        if test.text is None:
            return sa.false()
        if test.is_whole:
            return self.dialect.lower(expression) == test.text
        return self.dialect.contains(expression, test.text)

    def _setting_or_metric(self, term: Condition, test: ValueTest) -> Test:
        name, json = term.name, self.dialect.json
        setting, metric = name.removeprefix(SETTING), name.removeprefix(METRIC)
        if name.startswith(METRIC):
            return self._metric(term, metric) if metric in self.metrics else sa.false()
        found = json.setting(Run.config, setting, test)
        if name.startswith(SETTING) or metric not in self.metrics:
            return found
        return sa.or_(found, sa.and_(self._metric(term, metric), ~json.setting(Run.config, setting)))

    def _metric(self, term: Condition, name: str) -> Test:
        """Non-finite numbers are texts there."""
        texts = frozenset(text for text in NON_FINITE if term.holds([decode_number(text)]))
        test = replace(value_test(term), text=None, constants=frozenset(), exactly=texts)
        found = sa.select(sa.literal(1)).select_from(RunStatus).where(RunStatus.run_pk == Run.pk)
        return found.where(self.dialect.json.member(RunStatus.latest_values, name, test)).correlate(Run).exists()


def value_test(term: Condition) -> ValueTest:
    """Return the test of one value by `Condition.holds`; not for `!=`, which is the contrary of `=`."""
    number = number_of(term.value)
    if term.operator in ORDERS:
        return ValueTest(order=None if number is None else (term.operator, number))
    wanted = term.value.lower()
    constants: set[bool | None] = {value for value, words in ((True, TRUE), (False, FALSE)) if wanted in words}
    constants |= {None} if wanted in NULL else set()
    is_number = number is not None and number == number
    return ValueTest(
        number=number if is_number else None,
        text=wanted,
        is_whole=term.operator is Operator.EQUAL,
        constants=frozenset(constants),
    )


def _number(expression: sa.ColumnElement[int], test: ValueTest) -> Test:
    if test.order is not None:
        operator, limit = test.order
        return expression.op(str(operator), is_comparison=True)(sa.literal(limit, sa.Float(53)))
    return sa.false() if test.number is None else expression == sa.literal(test.number, sa.Float(53))


def _any(tests: Iterable[Test]) -> Test:
    return sa.or_(sa.false(), *tests)
