"""Tells a wrong collector address from a collector that is down.

A wrong address is a usage error, reported before training begins. If the collector is down, nothing is lost: the spool
keeps every step and is delivered later.
"""

import http.client
import socket

from lossguard import Client, CollectorError
from trainer.errors import UsageError, sentence

TIMEOUT = 3.0  # seconds


def check_collector(url: str) -> str | None:
    """None when a collector answers at `url`, else a warning for the user.

    Raises ConfigurationError or UsageError for a wrong address.
    """
    try:
        with Client(url, timeout=TIMEOUT) as client:
            client.ping()
    except CollectorError as error:
        if error.status == 404:
            raise UsageError(f"The server at {url} is not a Lossguard collector (it has no /healthz).") from None
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                raise UsageError(f"The collector's address {url} is wrong: there is no host with that name.") from None
            # A connection that is closed without an answer is both an HTTPException and an OSError.
            if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
                raise UsageError(
                    f"The server at {url} is not a Lossguard collector (it does not speak HTTP)."
                ) from None
            cause = cause.__cause__ or cause.__context__
        return f"{sentence(error)}; steps are kept in the spool until it is up."
    return None
