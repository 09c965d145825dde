"""How our commands are typed where this runs, for messages that name one as the remedy.

In a checkout and in the image that is `python -m db upgrade`; where the distribution `lossguard-server` is installed,
`lossguard-server db upgrade`.
"""

from functools import cache
from importlib import metadata

SERVER = "lossguard-server"
INSTALLED = (
    ("python -m dashboard report", f"{SERVER} report"),
    ("python -m dashboard", f"{SERVER} dashboard"),
    ("python -m db", f"{SERVER} db"),
    ("python -m monitor", f"{SERVER} collector"),
    ("python -m trainer replay", f"{SERVER} replay"),
    ("python -m trainer", f"{SERVER} trainer"),
)
"""In a checkout, and with the distribution: the first one that fits."""


@cache
def server_is_installed() -> bool:
    """Whether this environment has the distribution `lossguard-server`."""
    try:
        metadata.distribution(SERVER)
    except metadata.PackageNotFoundError:
        return False
    return True


def as_typed_here(text: str) -> str:
    """A text that names commands as in a checkout, with the commands as they are typed in this environment."""
    for command, installed in INSTALLED if server_is_installed() else ():
        text = text.replace(command, installed)
    return text
