"""The exceptions of the trainer.

ValueError
  UserMistake    something the user wrote cannot be used; the command line prints it and exits with 2
"""


class UserMistake(ValueError):
    """One clear sentence that names the setting, path or value at fault and says what would be right."""
