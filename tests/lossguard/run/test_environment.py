import sys
from pathlib import Path

import pytest

from lossguard.run.environment import git_commit
from lossguard.vocabulary.protocol import MAX_TEXT, checked_json
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


def test_secrets_of_the_command_line_and_of_the_configuration_are_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--hf-token", "Zq81xYvL", "WANDB_API_KEY=Zq81xYvL"])
    config = {"hub": {"token": "Zq81xYvL"}, "lr": 0.1}
    with offline(tmp_path, config=config) as run:
        first = records(run)[0]["run"]
    (spool,) = tmp_path.rglob("*.spool")
    assert b"Zq81xYvL" not in spool.read_bytes()
    assert first["command"] == "python train.py --hf-token *** WANDB_API_KEY=***"
    assert first["config"] == {"hub": {"token": "***"}, "lr": 0.1}
    assert config["hub"] == {"token": "Zq81xYvL"}, "the caller's own is not changed"
    assert "what looks like a secret in hub is recorded as ***" in caplog.text


def test_a_message_of_git_in_another_encoding_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "git"
    git.write_bytes(b"#!/bin/sh\nprintf 'dubious ownership in \\377' >&2\nexit 128\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
