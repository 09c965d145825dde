"""Stopping a command with everything below it: a signal, a time of grace, then SIGKILL."""

import signal

from lossguard.launch.child import Child
from lossguard.launch.descendants import Process, descendants, kill_all


class Stop:
    """One child that is being stopped. `advance` is called again and again until it has ended."""

    def __init__(self, child: Child, now: float, *, grace: float) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL; 0: SIGKILL at once. `now`: monotonic seconds."""
        self.began_at = now
        self._kill_at = now + grace
        self._below: dict[Process, None] = {}  # what was seen below it, parents first
        self.advance(child, now, number=signal.SIGTERM if grace > 0 else None)

    def advance(self, child: Child, now: float, number: int | None = None) -> None:
        """Look what is below the child now; kill all of it once the time of grace is over."""
        self._below.update(dict.fromkeys(descendants(child.pid)))
        if number is not None:
            child.send(number)
        elif now >= self._kill_at:
            child.send(signal.SIGKILL)
            kill_all(self._below)

    def finish(self) -> None:
        """The child has ended: what it has left behind is killed, or it would hold the devices and the ports."""
        kill_all(self._below)
