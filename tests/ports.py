"""Free ports of this machine for the processes that a test starts."""

import os
import random
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the ports that the kernel gives to outgoing connections, so that none of these takes one meanwhile."""
MAX_PROCESSES = 8
"""Test processes side by side; each has ports of its own (see the Makefile)."""

_random = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port on which nothing listens, and which no other test gets: its server may start late, or again.

    Chosen at random, as tests of another checkout may run at the same time.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % MAX_PROCESSES
    width = (HIGHEST - LOWEST) // MAX_PROCESSES
    while True:
        port = LOWEST + number * width + _random.randrange(width)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
