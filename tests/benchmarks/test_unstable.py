"""Regrets of the policies, from recorded arms."""

from pathlib import Path

import pytest

from benchmarks.unstable import print_regret, read

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_regrets_is_computed_from_the_recorded_arms(capsys: pytest.CaptureFixture[str]) -> None:
    print_regret(read(DOCS / "measurements" / "arms.jsonl"), sealed=21)
    assert capsys.readouterr().out in (DOCS / "drill.md").read_text()
