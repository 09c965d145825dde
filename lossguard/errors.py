"""The exceptions of the SDK.

LossguardError
    ConfigurationError (also ValueError)   a setting is wrong; raised by `init` alone
    CheckpointError                        no intact checkpoint, or one that cannot be written
        CheckpointMismatch                 what was restored is not what was saved, or half of it: stops a loop
    RanksError                             a rank left, or is at another step: stops the loops of all the others
    CollectorError                         internal to the sender; a training loop never sees one
        Unreachable                        try again later (no connection, 408, 429, 5xx, not a collector)
            Unauthorised                   401, 403: only a person can mend it
        UnknownRun                         404: the collector lost or never had the run
        Rejected                           any other 4xx: what was sent is bad
"""


class LossguardError(Exception):
    """Whatever the SDK raises on purpose."""


class ConfigurationError(LossguardError, ValueError):
    """A setting is wrong: one sentence that names it and its value."""


class CheckpointError(LossguardError):
    """No checkpoint is intact, or one could not be restored safely."""


class CheckpointMismatch(CheckpointError):
    """What was restored is not what was saved, or half of it. Objects have changed by then: the run must not go on."""


class RanksError(LossguardError):
    """A rank has left, or the ranks do not stand at the same step: they cannot go on together."""


class CollectorError(LossguardError):
    pass


class Unreachable(CollectorError):
    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the collector asked us to wait at least."""


class Unauthorised(Unreachable):
    pass


class UnknownRun(CollectorError):
    pass


class Rejected(CollectorError):
    pass
