"""Network addresses: which can be a collector's, and which never leave this machine."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lossguard.errors import ConfigurationError


def collector_url(setting: str, value: str) -> str:
    """`value` without a trailing slash, when it can be a collector's base address.

    Raises ConfigurationError, which names `setting`, for anything else.
    """
    try:
        parsed = parse_url(value)
    except LocationParseError:
        parsed = None
    is_http = parsed is not None and parsed.scheme in ("http", "https") and bool(parsed.host)
    if parsed is None or not is_http or parsed.query or parsed.fragment or any(map(str.isspace, value)):
        sentence = f"{setting}={value!r} is not the address of a collector, such as http://127.0.0.1:8000"
        raise ConfigurationError(sentence + _port_problem(value))
    return value.rstrip("/")


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
