"""What the runs of a store can be filtered and grouped by."""

import json
from collections import Counter
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.dialects import dialect_of
from db.models import Run
from lossguard.vocabulary.run_search import flattened, tags_of
from lossguard.vocabulary.secrets import mask_json

NUM_READ = 1_000
"""Runs whose settings are offered, the newest ones."""


def projects(session: Session) -> list[str]:
    """All projects, by name."""
    return sorted(session.scalars(sa.select(Run.project).distinct()))


def tags(session: Session) -> list[str]:
    """The tags of any run, by name: those that people gave, and of the other runs those of the loop."""
    found = dialect_of(session.get_bind()).json.member_text(Run.config, "tags")
    of_people = sa.select(sa.cast(Run.tags, sa.Text)).where(Run.tags.is_not(None)).distinct()
    of_loops = sa.select(found).where(Run.tags.is_(None)).distinct()
    return sorted({tag for text in (*session.scalars(of_people), *session.scalars(of_loops)) for tag in _read(text)})


def settings(session: Session) -> list[str]:
    """The settings of the NUM_READ newest runs by dotted path, those of most runs first."""
    newest = sa.select(Run.config).order_by(Run.started_at.desc(), Run.pk.desc()).limit(NUM_READ)
    counted = Counter(path for config in session.scalars(newest) for path in flattened(mask_json(config)))
    return [path for path, _ in counted.most_common()]


def has_setting(session: Session, name: str) -> bool:
    """Whether a setting of any run, or a section of them, has this name: its path or the last part of it."""
    is_set = dialect_of(session.get_bind()).json.setting(Run.config, name)
    return session.scalar(sa.select(Run.pk).where(is_set).limit(1)) is not None


def _read(text: str | None) -> Iterator[str]:
    yield from tags_of(None if text is None else json.loads(text), {})
