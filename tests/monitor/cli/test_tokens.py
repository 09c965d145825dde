"""Tokens are created, listed and revoked on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli import tokens


def test_tokens_are_made_listed_and_revoked_on_the_command_line(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", database_url)
    run = CliRunner()
    made = run.invoke(tokens.app, ["create", "trainers", "--scope", "report", "--scope", "read", "--project", "gpt"])
    token = made.output.strip()
    assert (made.exit_code, token[:3]) == (0, "lg_")
    twice = run.invoke(tokens.app, ["create", "trainers", "--scope", "read"])
    assert (twice.exit_code, "choose another name" in twice.output) == (2, True)
    listed = run.invoke(tokens.app, ["list"]).output
    assert "trainers  report,read  project gpt" in listed
    assert token not in listed
    job = run.invoke(tokens.app, ["create", "job-42", "--scope", "report", "--run", "42"])
    assert job.exit_code == 0
    assert "job-42  report  every project, run 42" in run.invoke(tokens.app, ["list"]).output
    assert run.invoke(tokens.app, ["revoke", "trainers"]).exit_code == 0
    assert "revoked" in run.invoke(tokens.app, ["list"]).output
    assert run.invoke(tokens.app, ["revoke", "nobody"]).exit_code == 2


def test_a_token_is_installed_from_a_file_once_and_only_if_nobody_can_guess_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", f"sqlite:///{tmp_path}/l.db")
    file = tmp_path / "token"

    def install(content: bytes | None) -> tuple[int, str]:
        if content is not None:
            file.write_bytes(content)
        done = CliRunner().invoke(tokens.app, ["install", "a", str(file), "--scope", "report", "--project", "gpt"])
        return done.exit_code, done.output.strip()

    assert install(b"0123456789abcdef" * 4 + b"\n") == (0, "a: installed")
    assert install(None) == (0, "a: was installed already")
    assert "a  report  project gpt" in CliRunner().invoke(tokens.app, ["list"]).output
    for useless in (b"", b"short", b"x" * 20 + b" " + b"x" * 20, "\u00e9".encode() * 40, b"\0" * 40):
        code, output = install(useless)
        assert (code, "must contain a token of at least 32" in output) == (2, True), output
    assert install(b"\xff" * 40)[0] == 2
    file.unlink()
    code, output = install(None)
    assert (code, "No such file" in output, "\n" in output) == (2, True, False)
