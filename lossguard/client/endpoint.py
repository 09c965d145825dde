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
    authority = re.split("[/?#]", value.partition("://")[2], maxsplit=1)[0]
    query = value.partition("?")[2]
    if "@" in authority or mask_text(query) != query:
        raise ConfigurationError(
            f"{setting}={mask_text(value)!r} holds a user name, password or token: use LOSSGUARD_TOKEN or token= for it"
        )
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    why = ""
    try:
        urlsplit(value).port  # noqa: B018  (reading it checks it)
    except ValueError as error:
        why = f" ({error})"
    try:
        parsed = parse_url(value)
        is_http = parsed.scheme in ("http", "https") and bool(parsed.host)
        is_base_address = is_http and not (parsed.query or parsed.fragment or any(map(str.isspace, value)))
    except LocationParseError:
        is_base_address = False
    if not is_base_address:
        sentence = f"{setting}={mask_text(value)!r} is not the address of a collector, such as http://127.0.0.1:8000"
        raise ConfigurationError(sentence + why)
    return value.rstrip("/")


def checked_token(setting: str, value: str) -> str:
    """The token without blanks around it, such as the line break at the end of a file.

    Raises ConfigurationError, which names `setting` and never shows the token, for what no header can hold.
    """
    token = value.strip()
    if not token or not token.isprintable():
        raise ConfigurationError(f"{setting} must be one line of printable characters: a token of the collector")
    return token
