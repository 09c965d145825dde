"""Finds the run that a person names. Pure."""

from collections.abc import Callable, Sequence

from db.models import Run

LATEST = "latest"
MAX_SUGGESTIONS = 5
"""Runs that an error names."""


class NoSuchRun(LookupError):
    """Raised if no run matches, or several do; the message names candidates."""


def find_run(runs: Sequence[Run], query: str) -> Run:
    """Find a run by id, project/name, name, or the beginning of an id: the first of these that matches any run.

    `latest` is the first of `runs`, unless a run is called so. Raises NoSuchRun.
    """
    matchers: tuple[Callable[[Run], bool], ...] = (
        lambda run: run.id == query,
        lambda run: f"{run.project}/{run.name}" == query,
        lambda run: run.name == query,
        lambda run: bool(query) and run.id.startswith(query),
    )
    for matches in matchers:
        found = [run for run in runs if matches(run)]
        if len(found) == 1:
            return found[0]
        if found:
            more = ", .." if len(found) > MAX_SUGGESTIONS else ""
            raise NoSuchRun(f"{query!r} matches {len(found)} runs; name one by its id: {_ids(found)}{more}")
    if query == LATEST and runs:
        return runs[0]
    if not runs:
        raise NoSuchRun(f"there is no run {query!r}: the store has no runs yet")
    raise NoSuchRun(f"there is no run {query!r} in this store; the newest are: {_ids(runs)}")


def _ids(runs: Sequence[Run]) -> str:
    return ", ".join(run.id for run in runs[:MAX_SUGGESTIONS])
