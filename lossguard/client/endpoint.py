"""The address of a collector and the token that it asks for, checked as users give them."""

import re
from urllib.parse import urlsplit

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.secrets import mask_text

_PLAIN = re.compile(r"https?://[A-Za-z0-9._-]+(?::[1-5]?[0-9]{1,4})?/?")
"""An address about which nothing can be wrong. Any other is parsed by urllib3, whose import takes longer than all of
`lossguard launch`."""


def collector_url(setting: str, value: str) -> str:
    """`value` without a trailing slash, when it can be a collector's base address.

    Raises ConfigurationError, which names `setting` and shows no secret, for anything else.
    """
    if _PLAIN.fullmatch(value):
        return value.rstrip("/")
    if _has_credentials(value):
        raise ConfigurationError(
            f"{setting}={mask_text(value)!r} holds a user name, password or token: use LOSSGUARD_TOKEN or token= for it"
        )
    if not _is_base_address(value):
        sentence = f"{setting}={mask_text(value)!r} is not the address of a collector, such as http://127.0.0.1:8000"
        raise ConfigurationError(sentence + _port_problem(value))
    return value.rstrip("/")


def _is_base_address(value: str) -> bool:
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        parsed = parse_url(value)
    except LocationParseError:
        return False
    is_http = parsed.scheme in ("http", "https") and bool(parsed.host)
    return is_http and not (parsed.query or parsed.fragment or any(map(str.isspace, value)))


def _has_credentials(address: str) -> bool:
    """Return True if a secret stands in `address`: before its host, or in its query."""
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


def checked_token(setting: str, value: str) -> str:
    """The token without blanks around it, such as the line break at the end of a file.

    Raises ConfigurationError, which names `setting` and never shows the token, for what no header can hold.
    """
    token = value.strip()
    if not token or not token.isprintable():
        raise ConfigurationError(f"{setting} must be one line of printable characters: a token of the collector")
    return token
