"""The progress of a long command: a bar on a terminal, a line from time to time elsewhere."""

import shutil
import sys
import time
from typing import Self, TextIO

from lossguard.cli.terminal import printable, printable_lines

BAR_SECONDS = 0.1
LINE_SECONDS = 10.0


class ProgressBar:
    """Shows one piece of work after another. Its bar on a terminal is wiped out by `say` and at the end."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        self._shown_at = time.monotonic()

    def show(self, what: str, done: float, total: float | None, unit: str) -> None:
        """`done` of `total` units of `what`; None: nobody knows how many there are."""
        now, what = time.monotonic(), printable(what)
        if now - self._shown_at < (BAR_SECONDS if self._is_terminal else LINE_SECONDS):
            return
        self._shown_at = now
        share = min(1.0, done / total) if total else None
        count = f"{done:,.0f} {unit}" if share is None else f"{share:4.0%}, {done:,.0f} of {total:,.0f} {unit}"
        if not self._is_terminal:
            print(f"{what}: {count.strip()}", file=self._out, flush=True)
            return
        columns = shutil.get_terminal_size().columns - 1
        bar = "" if share is None else "[" + ("#" * round(20 * share)).ljust(20, ".") + "] "
        print(f"\r\x1b[K{f'{bar}{what}: {count}'[:columns]}", end="", file=self._out, flush=True)

    def say(self, line: str) -> None:
        """A line that stays, or several."""
        self._wipe()
        print(printable_lines(line), file=self._out, flush=True)

    def complain(self, sentence: str) -> None:
        """A line on standard error."""
        self._wipe()
        print(f"lossguard: {printable(sentence)}", file=sys.stderr)

    def _wipe(self) -> None:
        if self._is_terminal:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._wipe()
