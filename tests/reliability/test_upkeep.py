"""A SQLite store is packed, archived, pruned and read while it takes reports: nothing is refused, lost or changed."""

import time
from pathlib import Path

import pytest

from tests.reliability.upkeep import Ledger, stress

pytestmark = pytest.mark.system

DONE = (
    "run ended", "read from the store", "read over HTTP", "deletion over HTTP", "packed", "archived", "brought",
    "deleted",
)  # fmt: skip
"""What has to happen, the words of commands among them."""


@pytest.mark.timeout(600)
def test_every_read_is_exact_and_nothing_is_refused_while_a_store_is_packed_archived_and_pruned(tmp_path: Path) -> None:
    latest = time.monotonic() + 400

    def is_enough(ledger: Ledger) -> bool:
        return all(ledger.counts[what] >= 2 for what in DONE) or time.monotonic() > latest

    found = stress(tmp_path, is_enough=is_enough)
    assert found.problems == []
    assert [what for what in DONE if found.counts[what] < 2] == []
