"""After a script that reported itself and was killed: deliver what it left in its spools, and end its run."""

import time
from pathlib import Path

from lossguard.client.client import Client
from lossguard.delivery.sender import Sender
from lossguard.run.settings import Mode, Settings
from lossguard.sources.positions import is_finished
from lossguard.spool.folders import lock_folder
from lossguard.spool.spool import session_of, spools_in
from lossguard.spool.writer import WRITER_HEADER, known_writer
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, LogOnce, logger
from lossguard.vocabulary.states import RunState

LOCK_WAIT = 1.0
"""Seconds; a process that holds the folder any longer is another one, which goes on with the run."""


def finish(folder: Path, settings: Settings, state: RunState, timeout: float) -> None:
    """Deliver the spools in the run's `folder` within `timeout` seconds; the run is then in `state`, unless the script
    has ended it itself."""
    spools = spools_in(folder)
    if settings.mode is not Mode.ONLINE or settings.url is None or not spools or is_finished(folder):
        return
    try:
        lock = lock_folder(folder, wait=LOCK_WAIT, remedy="it goes on with the run")
    except (ConfigurationError, OSError):
        return
    session, _ = session_of(spools[-1])
    writer = known_writer(folder, session)
    sender = Sender(folder, Client(settings.url, settings.token), LogOnce(), writer)
    sender.start()
    sender.join(timeout)
    sender.close(0.0)
    if sender.delivered:
        headers = {} if writer is None else {WRITER_HEADER: writer.to_header()}
        try:
            with Client(settings.url, settings.token, timeout=timeout) as client:
                body = {"state": state, "at": time.time()}
                client.request("POST", f"/runs/{folder.name}/finish", body, headers=headers)
        except CollectorError as problem:
            logger.warning("the end of the run %s could not be reported: %s", folder.name, problem)
    lock.release()
