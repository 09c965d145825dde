"""Network addresses: which can be a collector's, and which never leave this machine."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lossguard.errors import ConfigurationError
from lossguard.masking import mask_text


def collector_url(setting: str, value: str) -> str:
    """`value` without a trailing slash, when it can be a collector's base address.

    Raises ConfigurationError, which names `setting` and shows no secret, for anything else.
    """
    if _has_credentials(value):
        raise ConfigurationError(
            f"{setting}={mask_text(value)!r} holds a user name, a password or a token, which are never sent: write the "
            "address without them, and put the collector's token into LOSSGUARD_TOKEN (or token=)"
        )
    try:
        parsed = parse_url(value)
    except LocationParseError:
        parsed = None
    is_http = parsed is not None and parsed.scheme in ("http", "https") and bool(parsed.host)
    if parsed is None or not is_http or parsed.query or parsed.fragment or any(map(str.isspace, value)):
        sentence = f"{setting}={mask_text(value)!r} is not the address of a collector, such as http://127.0.0.1:8000"
        raise ConfigurationError(sentence + _port_problem(value))
    return value.rstrip("/")


def _has_credentials(address: str) -> bool:
    """Whether a secret stands in `address`: before its host, or in its query."""
    authority = re.split("[/?#]", address.partition("://")[2], maxsplit=1)[0]
    query = address.partition("?")[2]
    return "@" in authority or mask_text(query) != query


def _port_problem(address: str) -> str:
    """The end of the sentence when the port is wrong."""
    try:
        urlsplit(address).port  # noqa: B018  (reading it checks it)
    except ValueError as error:
        return f" ({error})"
    return ""


def is_loopback(host: str) -> bool:
    """Whether `host` (an IP address or a name, without a port) is this machine's loopback interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str) -> str:
    """The host of a URL, or of a Host header written as `//host:port`; empty where it cannot be parsed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
