"""The file of a report: HTML, or a PDF printed by the system's Chromium, written completely or not at all."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MAX_NAME_LETTERS = 50
"""Maximum letters of the name in that of the partial file: file systems limit names."""


class CannotWrite(Exception):
    """The message is one sentence with the reason."""


def check_writable(path: Path) -> None:
    """Raises CannotWrite where no file can be written; to be called before any work is done."""
    folder = path.parent
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise CannotWrite(f"{path} is a folder; name a file in it")
    except FileNotFoundError:
        if not folder.is_dir():
            raise CannotWrite(f"there is no folder {folder}; make it, or name another file with -o") from None
    except OSError as error:  # no permission to enter the folder, a name that is too long
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"cannot write in the folder {folder}: permission denied")


def write_atomically(path: Path, make: Callable[[Path], None]) -> None:
    """`make` writes a temporary file in the same folder, which then replaces `path`. Raises CannotWrite."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:MAX_NAME_LETTERS]}.", suffix=".part", dir=path.parent)
        part = Path(name)
        try:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)  # mkstemp makes it readable for its owner only
            os.close(handle)
            make(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error


PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_SECONDS = 120.0
"""A report of 100 incidents takes a few seconds."""
MAX_REASON_BYTES = 300
"""Maximum bytes of the browser's standard error that a message quotes."""
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no host can be reached, even if the page tried to
    "--no-pdf-header-footer",
)


class CannotPrint(Exception):
    """The message is one sentence with the reason."""


def find_browser() -> str:
    """Path of the system's Chromium. Raises CannotPrint when there is none."""
    for name in PROGRAMS:
        if (found := shutil.which(name)) is not None:
            return found
    raise CannotPrint(
        f"a PDF is printed by Chromium, and none of {', '.join(PROGRAMS)} is on the PATH; "
        "install it, or write a .html and print that"
    )


def print_pdf(page: str, target: Path, *, browser: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Print the HTML `page` to `target` with the program `browser` (None: the system's). Raises CannotPrint."""
    program = browser or find_browser()
    with tempfile.TemporaryDirectory(prefix="lossguard-report-") as folder:
        source, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_text(page, encoding="utf-8")
        # Chromium's sandbox does not start as root; the page's policy allows no file, connection or other script.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        output = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}", source.as_uri()]
        errors = _run([program, *FLAGS, *sandbox, *output], Path(folder) / "errors", timeout_seconds)
        if not printed.is_file() or printed.stat().st_size == 0:
            raise CannotPrint(f"{program} printed no PDF: {errors or 'it gave no reason'}")
        shutil.copyfile(printed, target)


def _run(command: list[str], log: Path, timeout_seconds: float) -> str:
    """The end of its standard error, which goes to the file `log`. It and its child processes end within the timeout.

    A pipe in place of the file would stay open as long as any child process.
    """
    with log.open("wb") as errors:
        try:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        except OSError as error:
            raise CannotPrint(f"{command[0]} cannot be started: {error.strerror or error}") from error
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        raise CannotPrint(f"{command[0]} did not print within {timeout_seconds:g} seconds and was terminated") from None
    finally:
        with suppress(ProcessLookupError):  # the group is gone with its last process
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - MAX_REASON_BYTES))
        lines = written.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
