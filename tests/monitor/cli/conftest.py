"""The store of the commands."""

from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture
def store(sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """A store that LOSSGUARD_DATABASE_URL names."""
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", f"sqlite:///{tmp_path}/lossguard.db")
    return sqlite_engine
