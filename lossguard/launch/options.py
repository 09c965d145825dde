"""The options of `lossguard launch` about rollbacks by restart, and the supervisor that they choose."""

import argparse
import logging
import os
import signal
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from lossguard.guard.limits_in_force import VARIABLE
from lossguard.guard.restart_plan import EXIT_CODE
from lossguard.launch.adapters import ADAPTERS, Options
from lossguard.launch.launcher import STOPPING, ChildEnd, Restart, Supervisor
from lossguard.launch.restart_rules import RestartBudget
from lossguard.launch.restarting import RestartSupervisor
from lossguard.run.run import Run
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.limits import Limits

# The supervisor of a script that keeps the restart contract (`lossguard.restart`).

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
        if end.asked_to_stop or end.is_fine:
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
            logger.warning("the command ended with %s, and is started again in %.1f s", end, pause)
            if signal.sigtimedwait(STOPPING, pause) is not None:
                self.is_interrupted = True
                return None
        self._started_at = time.monotonic()
        return Restart(command=self._command)


# The options.

CONTRACT = "script"
"""The value of --restart-with for a script that keeps the restart contract itself (`lossguard.restart`)."""


def add_restart_options(parser: Any) -> None:
    """Add them to the parser of the command."""
    add = parser.add_argument_group("rollback by restart").add_argument
    names = ", ".join([*ADAPTERS, CONTRACT])
    from_1 = ", ".join(name for name, adapter in ADAPTERS.items() if adapter.first_step == 1)
    add("--restart-with", metavar="ADAPTER", help=f"stop and start the command for an order: {names}")
    add("--checkpoints", metavar="FOLDER", help="where they are; generic: a pattern such as out/step_{step}")
    add("--resume-args", metavar="ARGS", help="added at a restart, as '--resume {checkpoint}', or with {step}")
    add("--can-skip", action="store_true", help="generic: the command reads LOSSGUARD_SKIPS or LOSSGUARD_SKIPS_FILE")
    first = f"number of the first step in what the command logs (default: 1 with {from_1}, else 0)"
    add("--first-step", type=int, choices=(0, 1), help=first)
    restarts = "within an hour, after crashes and hangs (default: %(default)s)"
    add("--max-restarts", type=int, metavar="N", default=10, help=restarts)
    add("--grace", type=float, metavar="SECONDS", default=30.0, help="from SIGTERM to SIGKILL (default: %(default)g)")
    backoff = "before the first restart after a crash (default: %(default)g)"
    add("--restart-backoff", type=float, metavar="SECONDS", default=1.0, help=backoff)
    add("--limits", help="what orders may do at most, as in mode=approve,max_depth=2000; see LOSSGUARD_LIMITS")
    hangs = f"kill a command that hangs, and start it again; not with {CONTRACT}"
    add("--restart-hangs", action="store_true", help=hangs)


def limit_orders(text: str | None, environment: MutableMapping[str, str]) -> None:
    """Make LOSSGUARD_LIMITS, which the command inherits, as strict as --limits. Raises ConfigurationError."""
    if text is not None:
        limits = Limits.parse(text, "--limits") & Limits.parse(environment.get(VARIABLE) or "", VARIABLE)
        environment[VARIABLE] = limits.to_text()


def supervisor_for(
    options: argparse.Namespace, command: list[str], *, folder: Path, run_folder: Path | None
) -> Supervisor | None:
    """The supervisor that the options ask for, if any; `folder`: of the launch, `run_folder`: of the run's spools.

    Raises ConfigurationError for an invalid option, and for a command that does not fit the adapter.
    """
    for name in ("max_restarts", "grace", "restart_backoff"):
        if not getattr(options, name) >= 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} {getattr(options, name)} must not be below 0")
    if options.restart_hangs and options.restart_with in (None, CONTRACT):
        raise ConfigurationError(
            "--restart-hangs needs --restart-with and an adapter that sees steps, such as hf or generic"
        )
    if options.restart_with is None:
        return None
    if options.restart_with == CONTRACT:
        return ContractSupervisor(command, max_restarts=options.max_restarts, backoff=options.restart_backoff)
    if options.restart_with not in ADAPTERS:
        known = ", ".join([*ADAPTERS, CONTRACT])
        raise ConfigurationError(f"--restart-with {options.restart_with!r:.80} must be one of {known}")
    details = Options(
        checkpoints=options.checkpoints,
        resume_args=options.resume_args,
        can_skip=options.can_skip,
        first_step=options.first_step,
    )
    return RestartSupervisor(
        command,
        ADAPTERS[options.restart_with](command, os.environ, details),
        folder=folder,
        run_folder=run_folder,
        max_restarts=options.max_restarts,
        grace=options.grace,
        backoff=options.restart_backoff,
        restart_hangs=options.restart_hangs,
    )
