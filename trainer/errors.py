"""The exceptions of the trainer, and the checks of settings that raise them."""

import signal


class UsageError(ValueError):
    """An argument, a file or a recipe cannot be used: one sentence that names it and says what would be right.

    The command line prints it and exits with 2.
    """


class Stopped(Exception):
    """A signal ended one of several runs, and so all of them."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.by = by


def sentence(error: Exception) -> str:
    """The message of an error, as the beginning of a sentence."""
    return str(error)[:1].upper() + str(error)[1:]


def require(name: str, value: object, holds: bool, allowed: str) -> None:
    """Raises UsageError, which names the setting as the user writes it, unless `holds`."""
    if not holds:
        raise UsageError(f"{name} = {value!r} cannot be used: it must be {allowed}.")


def require_at_least(prefix: str, config: object, minimum: float, *names: str) -> None:
    """Raises UsageError for a setting of the section `prefix` below `minimum`."""
    for name in names:
        value = getattr(config, name)
        require(prefix + name, value, value >= minimum, f"{minimum} or more")


def require_share(prefix: str, config: object, *names: str, below_one: bool = True) -> None:
    """Raises UsageError for a setting of the section `prefix` outside of 0 to 1, and for 1 if `below_one`."""
    for name in names:
        value = getattr(config, name)
        allowed = "at least 0 and below 1" if below_one else "between 0 and 1"
        require(prefix + name, value, 0.0 <= value < 1.0 or (value == 1.0 and not below_one), allowed)
