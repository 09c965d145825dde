"""A launched script that keeps the restart contract (`lossguard.restart`): it is started again when it asks for it."""

import logging
import signal
import time
from collections.abc import Sequence

from lossguard.launch.launcher import STOPPING, ChildEnd, Restart, Supervisor
from lossguard.launch.restart_budget import RestartBudget
from lossguard.restart_plan import EXIT_CODE
from lossguard.run import Run

USEFUL_SECONDS = 60.0
"""A start that lives longer has made progress: the launcher does not see the steps of a script that reports itself."""

logger = logging.getLogger("lossguard")


class ContractSupervisor(Supervisor):
    """Starts the command again after exit code 75, and within a budget after a crash."""

    def __init__(self, command: Sequence[str], *, max_restarts: int, backoff: float) -> None:
        """`max_restarts`: after crashes, within an hour; `backoff`: seconds before the first of them."""
        self._command = list(command)
        self._budget = RestartBudget(max_restarts, backoff)
        self._started_at = time.monotonic()

    def after(self, end: ChildEnd, run: Run | None) -> Restart | None:
        if end.asked_to_stop or end.code == 0 or (end.code is None and end.ended_cleanly):
            return None
        now = time.monotonic()
        if end.code == EXIT_CODE:
            logger.warning("the command is started again, because an order asks for it")
        else:
            refusal = self._budget.refusal(now, made_progress=now - self._started_at > USEFUL_SECONDS)
            if refusal is not None:
                logger.warning("the command is not started again: %s", refusal)
                return None
            pause = self._budget.pause()
            logger.warning("the command ended with code %s, and is started again in %.1f s", end.code, pause)
            if signal.sigtimedwait(STOPPING, pause) is not None:
                return None
        self._started_at = time.monotonic()
        return Restart(command=self._command)
