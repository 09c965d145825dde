"""Whether a collector answers, agrees about the time, and takes the token."""

import time
from collections.abc import Sequence
from typing import Any

from lossguard.cli.checks.check import Check, ok, problem, warning
from lossguard.client.client import Client
from lossguard.guard.limits_in_force import CLOCK_TOLERANCE
from lossguard.run.environment import versions
from lossguard.run.settings import Mode, Settings
from lossguard.vocabulary.errors import CollectorError, Unauthorised
from lossguard.vocabulary.secrets import host_of, is_loopback

CREATE = "lossguard-server token create NAME"
START = "start it there, or correct LOSSGUARD_URL"
TIMEOUT = 10.0
"""Seconds to wait for an answer."""
WORTH_A_WARNING = 5.0
"""Seconds between the clocks."""


def checks(settings: Settings, scopes: Sequence[str]) -> list[Check]:
    """Yield the checks in the order in which a connection needs them, up to the first problem."""
    if settings.url is None:
        mend = "set LOSSGUARD_URL, or deliver later with `lossguard sync`"
        return [warning("collector", "no collector is set: runs are recorded on this machine only", mend)]
    with Client(settings.url, settings.token, timeout=TIMEOUT) as client:
        try:
            client.ping()
        except CollectorError as error:
            return [_unusable(error)]
        return [*_mode(settings), *_privacy(settings), *_as_client(client, scopes)]


def _unusable(error: CollectorError) -> Check:
    is_up = error.status is not None
    mend = "correct LOSSGUARD_URL, or look into the log of the collector" if is_up else START
    return problem("collector", str(error), mend)


def _mode(settings: Settings) -> list[Check]:
    if settings.mode is Mode.ONLINE:
        return []
    mend = "unset LOSSGUARD_MODE (or RANK) to deliver"
    return [warning("mode", f"the mode is {settings.mode}: nothing is delivered while a run trains", mend)]


def _privacy(settings: Settings) -> list[Check]:
    """Return True if others can read the token on its way."""
    assert settings.url is not None
    if settings.url.startswith("https:"):
        return [ok("tls", "the connection is encrypted, and the certificate is accepted")]
    if is_loopback(host_of(settings.url)) or settings.token is None:
        return []
    mend = "put a proxy with TLS before the collector, and use https://"
    return [warning("tls", "the token travels over plain HTTP: whoever sees the traffic can use it", mend)]


def _as_client(client: Client, scopes: Sequence[str]) -> list[Check]:
    try:
        token = client.get("/token")
        before = time.time()
        about = client.get("/collector")
        skew = about["time"] - (before + time.time()) / 2
    except Unauthorised as error:
        mend = (
            f"set LOSSGUARD_TOKEN to a token of this collector: `{CREATE} --scope {' --scope '.join(scopes)}` makes one"
        )
        return [ok("collector", f"{client.url} answers"), problem("token", str(error), mend)]
    except CollectorError as error:
        return [_unusable(error)]
    return [_release(client, about), _clocks(skew), _scopes(token, scopes)]


def _release(client: Client, about: dict[str, Any]) -> Check:
    own, its = versions().get("lossguard"), about["version"]
    sentence = f"{client.url} answers, release {its}"
    if own == its:
        return ok("collector", sentence)
    return warning("collector", f"{sentence}; here is {own}", "that works; upgrade the older one when you can")


def _clocks(skew: float) -> Check:
    """`skew`: seconds by which the clock of the collector is ahead."""
    order = "ahead of" if skew > 0 else "behind"
    sentence = f"the collector's clock is {abs(skew):.1f} s {order} this machine's"
    mend = "set both by NTP"
    if abs(skew) >= CLOCK_TOLERANCE:
        return problem("clock", f"{sentence}: orders are refused as expired", mend)
    if abs(skew) >= WORTH_A_WARNING:
        return warning("clock", f"{sentence}: times in charts and orders are off by so much", mend)
    return ok("clock", sentence)


def _scopes(token: dict[str, Any], scopes: Sequence[str]) -> Check:
    bound = "".join(f", for the {what} {token[what]} only" for what in ("project", "run") if token[what] is not None)
    sentence = f"{token['name']} may {', '.join(token['scopes']) or 'do nothing'}{bound}"
    if missing := [scope for scope in scopes if scope not in token["scopes"]]:
        mend = f"create a token with --scope {' --scope '.join(missing)}, and set LOSSGUARD_TOKEN to it"
        return problem("token", f"{sentence}; it lacks {', '.join(missing)}", mend)
    return ok("token", sentence)
