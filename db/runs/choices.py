"""Choices for filters and groups of the runs of a store."""

from collections import Counter

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run, RunSetting
from db.runs import conditions
from lossguard.vocabulary.run_search import TAG, flattened
from lossguard.vocabulary.secrets import mask_json

NUM_READ = 1_000
"""Runs whose settings are offered, the newest ones."""


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
