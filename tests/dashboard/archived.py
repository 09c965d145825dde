"""A run whose steps are archived, for the pages that need them."""

from pathlib import Path

import sqlalchemy as sa

from db.steps.archived.places import Place
from db.store.engine import writing
from tests.db.archive.stored import add_ended_run, archive


def archive_run(store: sa.Engine, run_id: str, folder: Path) -> None:
    """Too few steps for roll-ups alone: a chart reads the file."""
    with writing(store) as session:
        add_ended_run(session, run_id)
    archive(store, Place(str(folder)), run_id)
