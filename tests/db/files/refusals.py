"""Imports that must fail."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from db import queries
from db.files import imports
from db.store.engine import reading, writing
from tests.db.seed import NOW


def refused(engine: sa.Engine, path: Path, sentence: str) -> None:
    """The import of the file fails with such a sentence, and nothing of it is imported."""
    with pytest.raises(imports.BadFile, match=sentence) as caught, writing(engine) as session:
        imports.import_file(session, path=path, now=NOW)
    assert "\n" not in str(caught.value)
    with reading(engine) as session:
        assert queries.runs(session) == []
