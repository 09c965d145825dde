import sys
from pathlib import Path

import pytest

from lossguard.protocol import MAX_TEXT, checked_json
from tests.lossguard.recorded import offline, records


def test_a_collector_accepts_what_a_run_records_about_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long command line, or one zero character, and nothing of the run was ever delivered."""
    monkeypatch.setattr(sys, "orig_argv", ["/opt/env/bin/python", "-c", "x" * 20_000])
    with offline(tmp_path, config={"sep\0": "a\0b"}) as run:
        first = records(run)[0]["run"]
    assert first["config"] == {"sep\u2400": "a\u2400b"}
    assert checked_json(first)["command"] == ("python -c " + "x" * 20_000)[:MAX_TEXT]
