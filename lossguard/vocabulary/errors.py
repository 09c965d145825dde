"""The exceptions of the SDK, and its warnings, each logged once."""

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast


class LossguardError(Exception):
    """The base class of all exceptions of the SDK."""


class ConfigurationError(LossguardError, ValueError):
    """A setting is invalid: one sentence that names it and its value. Raised by `init` and `Client`."""


class CheckpointError(LossguardError):
    """No checkpoint is intact, or one could not be restored safely."""


class CheckpointTooOld(CheckpointError):
    """Every intact checkpoint lies further back than may be restored. Nothing has changed."""


class CheckpointMismatch(CheckpointError):
    """The restored state is not the saved one, or only half of it. Objects have changed: the run must not continue."""


class RanksError(LossguardError):
    """A rank has left, or is at another step: the loops of all other ranks stop."""


class CollectorError(LossguardError):
    """A request to a collector failed; only `lossguard.Client` raises it."""

    def __init__(self, message: str, *, status: int | None = None, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None without an answer."""
        self.detail = detail
        """The collector's own sentence about it; empty without one."""
        self.retry_after = retry_after
        """Seconds to wait before the next attempt, at least."""


class Unreachable(CollectorError):
    """No usable answer (no connection, 408, 429, 5xx, or not a collector): trying again later may help."""

    def __init__(self, message: str, *, may_have_arrived: bool = True, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.may_have_arrived = may_have_arrived
        """True if the collector may have received the request, and acted on it."""


class Unauthorised(CollectorError):
    """The collector asks for a token (401) or for one with another scope (403)."""


class NotFound(CollectorError):
    """The collector does not know the run, the order or the incident (404)."""


class Rejected(CollectorError):
    """The collector refuses the request, and would refuse it again (4xx)."""


class Conflict(Rejected):
    """The request does not fit the present state (409): it comes too late, or too early."""


# Messages of the SDK to the person who trains, through `logging`.

logger = logging.getLogger("lossguard")
Method = TypeVar("Method", bound=Callable[..., Any])


class LogOnce:
    """Logs a warning once per key: a loop that runs for thousands of steps needs no thousand warnings."""

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet`: log nothing, as on all ranks but one."""
        self._logged: set[str] = set()
        self._quiet = quiet

    def warn_once(self, key: str, message: str) -> None:
        """Log `message`, unless a message with this key was logged since the last `reset`."""
        if key not in self._logged:
            self._logged.add(key)
            self.warn(message)

    def warn(self, message: str) -> None:
        """Log `message` every time, on a line of its own: tqdm's bars make room for it, and are drawn again."""
        if not self._quiet:
            tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
            with tqdm.external_write_mode() if getattr(tqdm, "_instances", ()) else nullcontext():
                logger.warning(message)

    def reset(self, key: str) -> bool:
        """Allow `key` to be logged again. Returns whether it had been logged."""
        logged = key in self._logged
        self._logged.discard(key)
        return logged


def never_raises(method: Method) -> Method:
    """Log an error in a method of an object with a `log_once` once, and return None: the training goes on."""

    @functools.wraps(method)
    def quiet(self: Any, /, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except Exception as problem:
            key = f"{method.__name__} {type(problem).__name__}"
            self.log_once.warn_once(key, f"{method.__name__} failed, and training continues: {problem!r}")

    return cast(Method, quiet)
