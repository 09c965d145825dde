from collections.abc import Iterator

import pytest

from tests.lossguard.collectors import FakeCollector, serving


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN", "DIR", "MODE", "RUN_ID"):
        monkeypatch.delenv(f"LOSSGUARD_{name}", raising=False)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with serving(FakeCollector()) as running:
        yield running
