from pathlib import Path
from typing import Any

import pytest

from lossguard import Run
from tests.ranks.launch import tell_stories
from tests.ranks.saving import Small

Told = list[dict[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks write. `alone` holds the checkpoints of one process that was told the same 7 steps."""
    folder = tmp_path_factory.mktemp("ranks")
    for _ in Small("alone", folder / "alone").run(7, Run(id="r")):
        pass
    return folder


@pytest.fixture(scope="session")
def two(folder: Path) -> Told:
    return tell_stories(2, folder)


@pytest.fixture(scope="session")
def four(folder: Path, two: Told) -> Told:
    """They find the checkpoints of the two."""
    return tell_stories(4, folder)


@pytest.fixture(params=["two", "four"])
def told(request: pytest.FixtureRequest) -> Told:
    """What 2 ranks, and what 4 ranks saw."""
    told: Told = request.getfixturevalue(request.param)
    return told
