"""Tells a collector's address that is wrong from a collector that is away.

A wrong address is the user's mistake and is said before training begins. A collector that is away costs nothing: the
spool keeps every step and is delivered when it is back.
"""

import http.client
import socket
import urllib.error
import urllib.parse
import urllib.request

from trainer.errors import UserMistake

TIMEOUT = 3.0  # seconds


def check_collector(url: str) -> str | None:
    """None when a collector answers at `url`, else a sentence for the user. Raises UserMistake for a wrong address."""
    if not url.startswith(("http://", "https://")):
        return None  # no address at all; lossguard.init names it
    try:
        urllib.parse.urlsplit(url).port  # noqa: B018  (reading it checks it)
    except ValueError as error:
        raise UserMistake(f"The collector's address {url!r} cannot be right: {error}.") from None
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/healthz", timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                raise UserMistake(f"What answers at {url} is no Lossguard collector (it has no /healthz).") from None
            return f"The collector at {url} answers with status {error.code}; steps are kept in the spool until it can."
    except http.client.InvalidURL as error:
        raise UserMistake(f"The collector's address {url!r} cannot be right: {error}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
            raise UserMistake(f"The collector's address {url} cannot be right: no host has that name.") from None
        return f"No collector answers at {url} ({reason}); steps are kept in the spool until one does."
    except http.client.HTTPException:
        raise UserMistake(f"What answers at {url} is no Lossguard collector (it does not speak HTTP).") from None
