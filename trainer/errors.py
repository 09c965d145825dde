"""The exceptions of the trainer.

ValueError
  UserMistake    something the user wrote cannot be used; the command line prints it and exits with 2
Exception
  Stopped        a signal ended one of several runs, and so all of them
"""

import signal


class UserMistake(ValueError):
    """One clear sentence that names the setting, path or value at fault and says what would be right."""


class Stopped(Exception):
    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.by = by
