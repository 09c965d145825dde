"""HTML to PDF, by the system's Chromium."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 120
"""A report of 100 incidents takes a few; after so long the browser hangs."""
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-first-run",
    "--disable-background-networking",
    "--no-pdf-header-footer",
)


class CannotPrint(Exception):
    """One sentence that says what stands in the way."""


def browser() -> str:
    """The program. Raises CannotPrint when there is none."""
    for name in PROGRAMS:
        if (found := shutil.which(name)) is not None:
            return found
    raise CannotPrint(
        f"a PDF is printed by Chromium, and none of {', '.join(PROGRAMS)} is on the PATH; "
        "install it, or write a .html and print that"
    )


def print_pdf(page: str, target: Path, *, seconds: float = SECONDS) -> None:
    """Print the HTML `page` to the file `target`. Raises CannotPrint."""
    program = browser()
    with tempfile.TemporaryDirectory(prefix="lossguard-report-") as folder:
        source, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_text(page, encoding="utf-8")
        # Chromium's sandbox does not start for root; the page runs no script and connects to nothing.
        own = ["--no-sandbox"] if os.geteuid() == 0 else []
        place = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}", source.as_uri()]
        errors = _run([program, *FLAGS, *own, *place], seconds)
        if not printed.is_file() or printed.stat().st_size == 0:
            raise CannotPrint(f"{program} printed no PDF: {errors or 'it did not say why'}")
        shutil.copyfile(printed, target)


def _run(command: list[str], seconds: float) -> str:
    """The last line that it complained with. It ends in time with all of its own processes."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise CannotPrint(f"{command[0]} did not print within {seconds:g} seconds and was ended") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    lines = errors.strip().splitlines()
    return lines[-1] if lines else ""
