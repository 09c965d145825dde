"""Which signal stopped the run, for the exit code: the guard handles signals and does not say which one came."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noted_signals() -> Iterator[Callable[[], int | None]]:
    """Give a function that tells the number of the first signal that was handled within the block. Main thread only."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: _first(reader)
        finally:
            signal.set_wakeup_fd(before)


def _first(reader: socket.socket) -> int | None:
    try:
        return reader.recv(1, socket.MSG_PEEK)[0]
    except BlockingIOError:
        return None
