"""Filters of runs in a list, as conditions of a query, and what can be chosen in them."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Metric, Run, RunSetting
from db.run_states import is_shown_as
from db.runs import conditions
from db.runs.conditions import FIELDS, Conditions, Test, has_tag
from db.store.engine import dialect_of
from lossguard.vocabulary.run_search import METRIC, TAG, Condition, Search, flattened
from lossguard.vocabulary.secrets import mask_json

NUM_READ = 1_000
"""Runs whose settings are offered, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """The runs that meet all of this."""

    projects: Collection[str] | None = None
    states: Collection[str] | None = None
    """States that the runs report: members of `RunState`."""
    shown_states: Collection[str] | None = None
    """States that lists show: members of `db.run_states.SHOWN_STATES`."""
    tags: Collection[str] = ()
    """Tags that a run must all have."""
    since: float | None = None
    """Time since which the runs must have reported (unix seconds)."""
    archived: bool | None = None
    """False: no archived runs, True: only archived ones, None: both."""
    search: Search = field(default_factory=Search)
    run_ids: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter for the database."""

    tests: Sequence[Test]
    of_steps: Sequence[Condition]
    """The conditions that mean the newest value of a metric which only the steps have, unless a setting has the
    name."""
    by_settings: Sequence[Test]
    """Conditions on settings, each true if a setting meets it; NULL if no setting has the name."""


def selection(session: Session, where: RunFilter, *, now: float) -> Selection:
    """The filter at a time (unix seconds)."""
    metrics = _metrics_named(session, where.search.names)
    meant = Conditions(dialect=dialect_of(session.get_bind()), metrics=metrics, now=now)
    of_steps = [term for term in where.search.terms if isinstance(term, Condition) and meant.is_of_steps(term)]
    others = [meant.term(term) for term in where.search.terms if term not in of_steps]
    tests = [*_tests(where, now), *others, *map(has_tag, where.tags)]
    return Selection(tests, of_steps, [meant.by_setting(term) for term in of_steps])


def _metrics_named(session: Session, names: Collection[str]) -> frozenset[str]:
    """Return the metrics of any run that these names may mean."""
    asked = {name.removeprefix(METRIC) for name in {*names} - FIELDS}
    known = (session.scalar(sa.select(Metric.name).where(Metric.name == name).limit(1)) for name in asked)
    return frozenset(name for name in known if name is not None)


def _tests(where: RunFilter, now: float) -> list[Test]:
    """Return the conditions, those on columns first."""
    tests: list[Test] = []
    for column, among in ((Run.project, where.projects), (Run.state, where.states), (Run.id, where.run_ids)):
        if among is not None:
            tests.append(column.in_(sorted(among)))
    if where.archived is not None:
        tests.append(Run.archived_at.is_not(None) if where.archived else Run.archived_at.is_(None))
    if where.since is not None:
        tests.append(sa.type_coerce(Run.last_report_at, sa.Float) >= where.since)
    if where.shown_states is not None:
        tests.append(sa.or_(sa.false(), *(is_shown_as(state, now) for state in where.shown_states)))
    return tests


def projects(session: Session) -> list[str]:
    """Return all projects, by name."""
    return sorted(session.scalars(sa.select(Run.project).distinct()))


def tags(session: Session) -> list[str]:
    """The tags of any run, by name: those that people gave, and of the other runs those of the loop."""
    of_run = sa.and_(RunSetting.run_pk == Run.pk, RunSetting.key == TAG, RunSetting.name == TAG)
    found = sa.select(RunSetting.text).select_from(Run).join(RunSetting, of_run).distinct()
    return sorted(tag for tag in session.scalars(found) if tag is not None)


def settings(session: Session) -> list[str]:
    """The settings of the NUM_READ newest runs by dotted path, those of most runs first."""
    newest = sa.select(Run.config).order_by(Run.started_at.desc(), Run.pk.desc()).limit(NUM_READ)
    counted = Counter(path for config in session.scalars(newest) for path in flattened(mask_json(config)))
    return [path for path, _ in counted.most_common()]


def has_setting(session: Session, name: str) -> bool:
    """True if a setting of any run has this name: its path, or the end of it."""
    return session.scalar(sa.select(Run.pk).where(conditions.has_setting(name)).limit(1)) is not None
