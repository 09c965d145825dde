import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.hooks import journal as journal_module
from lossguard.launch.hooks import tracker_log
from lossguard.launch.hooks.journal import Journal
from lossguard.run.process_rank import RANK_VARIABLES


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_log, "_owners", {})
    monkeypatch.setattr(journal_module, "_said", set())
    for variable in ("RANK", *RANK_VARIABLES):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(str(tmp_path / "child.journal"))
    yield opened
    opened.close()


@pytest.fixture
def entries(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What stands in the journal."""
    path = tmp_path / "child.journal"
    return lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
