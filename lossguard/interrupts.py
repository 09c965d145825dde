"""Ctrl-C, for the commands."""

from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Ctrl-C in the block ends the process with INTERRUPTED and without a traceback, such as while it imports."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
