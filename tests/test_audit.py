"""The audit of dependencies calls nothing clean that was not looked up."""

from typing import Any

import pytest

from tests.audit import CLEAN, KNOWN, UNKNOWN, installed, verdict

FINE: dict[str, Any] = {"name": "fine", "version": "1.0", "vulns": []}
BAD: dict[str, Any] = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
PASSED: dict[str, Any] = {"name": "passed", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([FINE], CLEAN, "nothing is known"),
        ([FINE, BAD], KNOWN, "bad 2.0: PYSEC-1, mended in 2.1"),
        ([FINE, PASSED], UNKNOWN, "not looked up: passed (not found)"),
        ([FINE, BAD, PASSED], KNOWN, "not looked up: passed"),
        ([PASSED, PASSED], UNKNOWN, "nothing was checked"),
    ],
)
def test_what_was_passed_over_is_not_clean(packages: list[dict[str, Any]], code: int, words: str) -> None:
    found, sentences = verdict({"dependencies": packages})
    assert found == code
    assert words in " ".join(sentences)


def test_all_that_is_installed_is_looked_up_but_our_own_package() -> None:
    names = {line.partition("==")[0].lower() for line in installed()}
    assert {"fastapi", "sqlalchemy", "urllib3", "torch"} <= names
    assert "lossguard" not in names
