"""The SummaryWriter of torch or tensorboardX, after a rollback."""

import sys
from typing import Any


def purge(writer: Any, step: int) -> None:
    """Have TensorBoard hide what `writer` has written for `step` and later ones: those steps are done again.

    Its own argument `purge_step` needs a new writer, whose file takes the place of one from the same second in
    tensorboardX.
    """
    modules = (sys.modules[each.__module__] for each in type(writer).__mro__)
    package: Any = next(each for each in modules if hasattr(each, "SessionLog"))
    start = package.SessionLog(status=package.SessionLog.START)
    writer._get_file_writer().add_event(package.Event(step=step, session_log=start))
