"""What the leader does besides: remove the files of archived steps whose run was deleted."""

import logging

import sqlalchemy as sa

from db.archive import removal

log = logging.getLogger(__name__)


class FileRemoval:
    """Removes them; what a place refuses stays listed in the store for the next time."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last_problem: str | None = None

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
