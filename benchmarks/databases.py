"""The databases that a measurement runs on: a file of SQLite, and a temporary server where PostgreSQL is installed."""

from contextlib import ExitStack

from tests import postgres


def databases(stack: ExitStack, folder: str) -> dict[str, str]:
    """Name -> URL of an empty store; `stack` ends the server."""
    urls = {"SQLite": f"sqlite:///{folder}/store.db"}
    if postgres.PROGRAMS:
        urls["PostgreSQL"] = stack.enter_context(postgres.running()).url()
    return urls
