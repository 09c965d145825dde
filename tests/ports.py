"""Free ports of this machine for the processes that a test starts."""

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the ports that the kernel gives to outgoing connections, so that none of these takes one meanwhile."""

_random = random.SystemRandom()


def free_port() -> int:
    """A port on which nothing listens; chosen at random, as tests that run at the same time choose theirs too."""
    while True:
        port = _random.randrange(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
