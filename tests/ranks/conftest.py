from pathlib import Path
from typing import Any

import pytest

from lossguard import Run
from tests import object_store
from tests.ranks.launch import run_scenarios
from tests.ranks.saving import BUCKET, Small

Results = list[dict[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks write. `alone` holds the checkpoints of one process that trained the same 7 steps."""
    folder = tmp_path_factory.mktemp("ranks")
    for _ in Small("alone", folder / "alone").run(7, Run(id="r")):
        pass
    return folder


@pytest.fixture(scope="session")
def two(folder: Path, request: pytest.FixtureRequest) -> Results:
    if object_store.PROGRAM is None:
        return run_scenarios(2, folder)
    server: object_store.Server = request.getfixturevalue("object_store_server")
    return run_scenarios(2, folder, **server.environment, **{BUCKET: server.create_bucket("ranks")})


@pytest.fixture(scope="session")
def four(folder: Path, two: Results) -> Results:
    """These ranks restore the checkpoints of two ranks."""
    return run_scenarios(4, folder)


@pytest.fixture(params=["two", "four"])
def results(request: pytest.FixtureRequest) -> Results:
    """The results of 2 ranks, then of 4."""
    results: Results = request.getfixturevalue(request.param)
    return results
