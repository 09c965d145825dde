"""Messages of the SDK to the person who trains, through `logging`."""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

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
        """Log `message` every time."""
        if not self._quiet:
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
