"""The token that a collector asks for, as it may stand in the header of a request."""

from lossguard.errors import ConfigurationError


def checked_token(setting: str, value: str) -> str:
    """The token without blanks around it, such as the line break at the end of a file.

    Raises ConfigurationError, which names `setting` and never shows the token, for what no header can hold.
    """
    token = value.strip()
    if not token or not token.isprintable():
        raise ConfigurationError(f"{setting} must be one line of printable characters: a token of the collector")
    return token
