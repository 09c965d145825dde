"""Waiting for an event in place of a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 60.0, *, interval: float = 0.02) -> T:
    """What `condition` returns as soon as that is true; after `seconds`, whatever it returns then.

    `interval`: seconds between two calls of it.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(interval)
    return found or condition()  # the last look may be old by now


def pause(seconds: float) -> None:
    """Let time pass that belongs to a fault or to the pace of a program. A test that waits names its condition."""
    time.sleep(seconds)


def wait_for(condition: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """What `condition` returns once that is true. Raises AssertionError after `seconds`."""
    found = eventually(condition, seconds)
    assert found, f"not within {seconds:.0f} s: {what}"
    return found
