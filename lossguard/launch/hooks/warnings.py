"""Messages of the hooks to the person who trains: each of them once, on stderr."""

import sys
from contextlib import suppress

_said: set[str] = set()


def warn_once(message: str) -> None:
    """Print `message`, unless this process has printed it before. Never raises."""
    if message not in _said:
        _said.add(message)
        with suppress(Exception):  # stderr may be closed, or something of the program's own
            print(f"lossguard: {message}", file=sys.stderr, flush=True)
