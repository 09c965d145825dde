from pathlib import Path

import pytest

from tests.lossguard.collectors import FakeCollector
from tests.lossguard.launch.launching import Launching


@pytest.fixture
def launching(tmp_path: Path, collector: FakeCollector) -> Launching:
    return Launching(tmp_path / "work", collector)
