from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from lossguard import Client
from lossguard.cli import connection
from lossguard.cli.commands import doctor
from lossguard.sources import watching
from tests.dashboard.serving import serving
from tests.lossguard.cli.calls import Cli


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time to answer."""
    monkeypatch.setattr(doctor, "TIMEOUT", 120.0)
    monkeypatch.setattr(connection, "TIMEOUT", 120.0)
    monkeypatch.setattr(watching, "FINISH_SECONDS", 120.0)


@pytest.fixture
def collector_client(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a real collector, which the commands find through LOSSGUARD_URL."""
    monkeypatch.delenv("LOSSGUARD_DASHBOARD_URL", raising=False)
    with serving(sqlite_engine) as url, Client(url) as client:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        yield client


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)
