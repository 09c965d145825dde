"""What the leader does besides: remove the files of archived steps whose run was deleted.

A place may take minutes to answer, so this has a thread of its own: the lease is renewed meanwhile.
"""

import logging
import threading
import time

import sqlalchemy as sa

from db.archive import removal

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


class FileRemoval:
    """Removes them at most once a minute; what a place refuses stays listed in the store for the next time."""

    def __init__(self, engine: sa.Engine, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._engine, self._every_seconds = engine, every_seconds
        self._due = 0.0  # by the monotonic clock
        self._thread: threading.Thread | None = None
        self._last_problem: str | None = None

    def start_if_due(self) -> None:
        """Begin in the background, unless it is too early or the last time goes on."""
        is_working = self._thread is not None and self._thread.is_alive()
        if not is_working and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_seconds
            self._thread = threading.Thread(target=self.remove, name="lossguard-file-removal", daemon=True)
            self._thread.start()

    def remove(self) -> None:
        """Remove what can be removed now. A problem is logged when it is not that of the time before."""
        try:
            removed = removal.remove_left_over(self._engine)
        except sa.exc.SQLAlchemyError as error:  # the next time may do better
            log.debug("files of deleted runs were not looked for: %s", type(error).__name__)
            return
        if removed.num_files:
            log.info("removed %d files of archived steps that nothing needs", removed.num_files)
        problem = next(iter(removed.problems), None)
        if problem is not None and problem != self._last_problem:
            log.warning("%d files of archived steps of deleted runs wait to be removed: %s", removed.num_left, problem)
        self._last_problem = problem
