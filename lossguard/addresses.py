"""Network addresses: which of them never leave this machine."""

from ipaddress import ip_address
from urllib.parse import urlsplit


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
