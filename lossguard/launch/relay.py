"""The process between a launched command and its terminal: it passes on what the command prints, and reads it.

    python -I -S relay.py JOURNAL PATTERN CONTROL SOURCE TARGET [SOURCE TARGET]

`arguments_of` says what they are. It is a process of its own so that the command goes on when the launcher is killed.
One thread for each output passes on bytes as they come, before anybody reads them; the main thread reads. When reading
fails or cannot keep up, the command notices nothing: lines are left out, and the reason is said once.

The command waits until this process is ready: what is imported here is quick to import, and the rest comes later.
"""

import fcntl
import math
import os
import select
import sys
import termios
import threading
import time
from collections import deque
from contextlib import suppress
from errno import EBADF, EIO, EPIPE

TYPE_CHECKING = False  # without the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lossguard.launch.printed_rows import PrintedRows

CHUNK = 1 << 16
"""Bytes that are passed on at once, at most."""
MAX_BACKLOG = 4 << 20
"""Bytes of memory for what waits to be read; what comes while it is full is passed on without being read."""
CHUNK_MEMORY = 256
"""Bytes of memory that a waiting chunk takes beside its content."""
READY, DONE = b"r", b"d"
"""Messages to the launcher: the relay passes on; all that the command has printed is passed on and read."""
STOP_READING, COMMAND_ENDED = b"s", b"e"
"""Messages of the launcher to the relay."""
END_SECONDS = 0.3
"""From the end of the command until a process of it that still has an output counts as one that goes on."""
LOOK_SECONDS = 0.02
"""Pause between two looks whether all is passed on, from then on."""


def arguments_of(
    outputs: "Sequence[tuple[int, int]]", *, control: int, journal: str, pattern: "str | None" = None
) -> "list[str]":
    """Return the arguments of a relay.

    `outputs`: pairs of file descriptors, where the command writes and where that goes; `control`: a socket of the
    launcher; `journal`: the file of the rows; `pattern`: the user's (None: lines of known trainers are read).
    """
    return [journal, pattern or "", str(control), *(str(each) for pair in outputs for each in pair)]


def say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"lossguard: {text}\n".encode())


class Backlog:
    """Data that was passed on and waits to be read."""

    def __init__(self) -> None:
        self.is_wanted = True
        """True if anybody reads."""
        self._chunks: deque[tuple[int, bytes | None] | None] = deque()  # None: from `wake`
        self._size = 0
        self._gaps: set[int] = set()
        self._news = threading.Condition()

    def add(self, output: int, data: bytes) -> None:
        """Take in what an output has passed on, unless there is too much already."""
        with self._news:
            if self._size + len(data) <= MAX_BACKLOG:
                self._chunks.append((output, data))
                self._size += len(data) + CHUNK_MEMORY
                self._gaps.discard(output)
            elif output not in self._gaps:
                self._gaps.add(output)
                self._chunks.append((output, None))
            self._news.notify()

    def wake(self) -> None:
        """Let `take` return None once: something else has happened."""
        with self._news:
            self._chunks.append(None)
            self._news.notify()

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def take(self, timeout: float | None = 0.0) -> tuple[int, bytes | None] | None:
        """Return the next chunk with its output, None in place of bytes that were left out; None: there is nothing.

        `timeout`: seconds to wait for one; None: until there is one, or `wake` is called.
        """
        with self._news:
            self._news.wait_for(lambda: self._chunks, timeout)
            chunk = self._chunks.popleft() if self._chunks else None
            if chunk is not None and chunk[1] is not None:
                self._size -= len(chunk[1]) + CHUNK_MEMORY
            return chunk


class Output:
    """One output of the command: `pass_on` is the work of a thread."""

    def __init__(self, source: int, target: int, backlog: Backlog) -> None:
        self.source, self.target = source, target
        self._backlog = backlog
        self._num_read, self._num_passed = 0, 0  # bytes
        self._is_lossy = False
        self.has_ended = False
        self._expected: int | None = None  # bytes that were printed at the first look whether all is passed on
        self._num_quiet = 0  # looks in a row at which it was

    def pass_on(self) -> None:
        with suppress(OSError):  # a terminal that nobody has open any more
            while data := os.read(self.source, CHUNK):
                self._num_read += len(data)
                if not self._write(data):
                    break
                self._num_passed += len(data)
                if self._backlog.is_wanted:
                    self._backlog.add(self.target, data)
        self.has_ended = True
        os.close(self.source)  # whoever still writes learns that nobody listens, as without a relay
        self._backlog.wake()

    def is_done(self) -> bool:
        """Look whether everything is passed on that was printed before the first look.

        A process that the command has started may go on printing.
        """
        if self.has_ended:
            return True
        waiting = bytearray(4)
        with suppress(OSError):  # it has just ended
            fcntl.ioctl(self.source, termios.FIONREAD, waiting)
        num_waiting = int.from_bytes(waiting, sys.byteorder)
        if self._expected is None:
            self._expected = num_waiting + self._num_read
            return False
        self._num_quiet = self._num_quiet + 1 if num_waiting == 0 and self._num_read == self._num_passed else 0
        return self._num_passed >= self._expected or self._num_quiet == 2

    def _write(self, data: bytes) -> bool:
        """Write all of it; returns whether the target is still there."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.target, rest) :]
            except BlockingIOError:  # another process has made the terminal non-blocking
                select.select([], [self.target], [])
            except OSError as problem:
                if problem.errno in (EPIPE, EIO, EBADF):
                    return False
                if not self._is_lossy:
                    self._is_lossy = True
                    say(f"what the command prints is lost: it cannot be written ({problem.strerror})")
                return True
        return True


class Relay:
    """The work of the main thread: reading, and what the launcher asks for."""

    def __init__(self, arguments: "Sequence[str]") -> None:
        self._journal, self._pattern, control, *ends = arguments
        self._control = int(control)
        self._backlog = Backlog()
        pairs = zip(map(int, ends[::2]), map(int, ends[1::2]), strict=True)
        self._outputs = [Output(*pair, self._backlog) for pair in pairs]
        self._ends_at = math.inf
        self._rows: PrintedRows | None = None
        self._has_said_gaps = False

    def run(self) -> None:
        """Pass on until nobody can print any more."""
        threads = [threading.Thread(target=each.pass_on) for each in self._outputs]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._listen, daemon=True).start()
        self._tell(READY)
        self._attend()
        for thread in threads:
            thread.join()

    def _listen(self) -> None:
        """Hear the launcher until it has ended. If it was killed, the command goes on."""
        with suppress(OSError):
            while asked := os.read(self._control, 1):
                if asked == COMMAND_ENDED:
                    self._ends_at = time.monotonic() + END_SECONDS
                else:
                    self._backlog.is_wanted = False
                self._backlog.wake()

    def _attend(self) -> None:
        """Read what is passed on until the command has ended, and nothing is left that it has printed."""
        self._try(self._begin_to_read)
        while not all(each.has_ended for each in self._outputs):
            pause = None if self._ends_at == math.inf else max(LOOK_SECONDS, self._ends_at - time.monotonic())
            self._try(self._read_chunk, pause)
            if time.monotonic() >= self._ends_at and all([each.is_done() for each in self._outputs]):
                break  # what a process prints that the command has started is passed on still
        while self._backlog:
            self._try(self._read_chunk)
        self._stop_reading()
        self._tell(DONE)

    def _try(self, read: "Callable[..., None]", *arguments: "float | None") -> None:
        """Call what reads; the command does not notice when that fails."""
        try:
            read(*arguments)
        except Exception as problem:
            say(f"what the command prints is no longer read: {type(problem).__name__}: {problem}")
            self._stop_reading()

    def _begin_to_read(self) -> None:
        import logging
        import signal

        from lossguard.launch.printed_rows import PrintedRows

        signal.signal(signal.SIGWINCH, self._resize)
        logging.basicConfig(format="lossguard: %(message)s")
        self._rows = PrintedRows(self._journal, self._pattern or None)

    def _resize(self, number: int, frame: object) -> None:
        """Give the terminals of the command the size of the real ones."""
        for each in self._outputs:
            with suppress(OSError):
                fcntl.ioctl(each.source, termios.TIOCSWINSZ, fcntl.ioctl(each.target, termios.TIOCGWINSZ, bytes(8)))

    def _read_chunk(self, timeout: float | None = 0.0) -> None:
        chunk = self._backlog.take(timeout)
        if not self._backlog.is_wanted:
            self._stop_reading()
        if chunk is None or self._rows is None:
            return
        output, data = chunk
        if data is None and not self._has_said_gaps:
            self._has_said_gaps = True
            say("the command prints faster than it can be read: some of its lines are not recorded")
        self._rows.take(output, data)

    def _stop_reading(self) -> None:
        self._backlog.is_wanted = False
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()

    def _tell(self, what: bytes) -> None:
        with suppress(OSError):
            os.write(self._control, what)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    Relay(sys.argv[1:]).run()
