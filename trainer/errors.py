"""The exceptions of the trainer.

ValueError
  UsageError     an argument, a file or a recipe cannot be used; the command line prints it and exits with 2
Exception
  Stopped        a signal ended one of several runs, and so all of them
"""

import signal


class UsageError(ValueError):
    """One clear sentence that names the setting, path or value at fault and says what would be right."""


class Stopped(Exception):
    """A signal ended the run."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.by = by
