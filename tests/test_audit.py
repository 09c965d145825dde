"""The audit of dependencies does not call a package clean that was not checked."""

from typing import Any

import pytest

from tests.audit import CLEAN, UNCHECKED, VULNERABLE, installed, verdict

FINE: dict[str, Any] = {"name": "fine", "version": "1.0", "vulns": []}
BAD: dict[str, Any] = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
SKIPPED: dict[str, Any] = {"name": "skipped", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([FINE], CLEAN, "no vulnerability is known"),
        ([FINE, BAD], VULNERABLE, "bad 2.0: PYSEC-1, fixed in 2.1"),
        ([FINE, SKIPPED], UNCHECKED, "not checked: skipped (not found)"),
        ([FINE, BAD, SKIPPED], VULNERABLE, "not checked: skipped"),
        ([SKIPPED, SKIPPED], UNCHECKED, "nothing was checked"),
    ],
)
def test_a_skipped_package_is_not_clean(packages: list[dict[str, Any]], code: int, words: str) -> None:
    found, sentences = verdict({"dependencies": packages})
    assert found == code
    assert words in " ".join(sentences)


@pytest.mark.slow
def test_every_installed_package_but_our_own_is_checked() -> None:
    names = {line.partition("==")[0].lower() for line in installed()}
    assert {"fastapi", "sqlalchemy", "urllib3", "torch"} <= names
    assert "lossguard" not in names
