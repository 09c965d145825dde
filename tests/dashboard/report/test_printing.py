"""HTML to PDF."""

from pathlib import Path

import pytest

from dashboard.report.printing import CannotPrint, print_pdf


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exec sleep 60", "did not print within 0.2 seconds and was terminated"),
        ("echo it is broken >&2; exit 1", "printed no PDF: it is broken"),
    ],
)
def test_a_browser_that_hangs_or_fails_is_reported(tmp_path: Path, script: str, why: str) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(CannotPrint, match=why):
        print_pdf("<p>", tmp_path / "r.pdf", browser=str(program), timeout_seconds=0.2 if "sleep" in script else 30)
    assert not (tmp_path / "r.pdf").exists()
