"""The runs of a collector as a frame, read in pages."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from lossguard.errors import Rejected
from lossguard.protocol import RUN_CURSOR
from lossguard.reading import tables
from lossguard.reading.frames import Frame, table_of

if TYPE_CHECKING:
    from lossguard.delivery.client import Client

PAGE = 500
"""Runs that are asked for at once."""


def list_runs(
    client: "Client",
    *,
    project: str | None = None,
    state: str | None = None,
    tags: Sequence[str] = (),
    search: str | None = None,
    since: float | None = None,
    limit: int | None = None,
) -> Frame:
    """The runs of a collector, the newest first, `id` as index. Raises Rejected (see `Client.runs`) and ValueError."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be a number of runs, from 1")
    if isinstance(tags, str):
        raise ValueError(f"tags={tags!r} must be a list of tags, as in [{tags!r}]")
    new: list[tuple[str, str | float]] = [("tag", tag) for tag in tags]
    new += [(name, value) for name, value in (("search", search), ("since", since)) if value is not None]
    old = [(name, value) for name, value in (("project", project), ("state", state)) if value is not None]
    query = urlencode([*old, *new, ("limit", min(limit or PAGE, PAGE))])
    found = (run for run in _pages(client, f"/runs?{query}", needs_new=bool(new)) if state in (None, run["state"]))
    return table_of(tables.RUNS, list(islice(found, limit)))


def _pages(client: "Client", path: str, *, needs_new: bool) -> Iterator[dict[str, Any]]:
    pages = client.pages(path)
    first = next(pages)
    if needs_new and RUN_CURSOR not in client.accepts:
        message = f"the collector at {client.url} is of an earlier release and cannot search its runs: upgrade it"
        raise Rejected(message)
    yield from chain(first, *pages)
