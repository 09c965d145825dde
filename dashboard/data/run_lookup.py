"""Which run a person means. Pure."""

from collections.abc import Callable, Sequence

from db.models import Run

SHOWN = 5
"""Runs that are named when several fit."""


class NoSuchRun(LookupError):
    """No run fits, or several do; the message says which."""


def find_run(runs: Sequence[Run], wanted: str) -> Run:
    """By its id, as project/name, by its name, or by the beginning of its id: the first of these that fits any."""
    ways: tuple[Callable[[Run], bool], ...] = (
        lambda run: run.id == wanted,
        lambda run: f"{run.project}/{run.name}" == wanted,
        lambda run: run.name == wanted,
        lambda run: bool(wanted) and run.id.startswith(wanted),
    )
    for fits in ways:
        found = [run for run in runs if fits(run)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(run.id for run in found[:SHOWN]) + (", .." if len(found) > SHOWN else "")
            raise NoSuchRun(f"{wanted!r} may be any of {len(found)} runs; name one by its id: {ids}")
    if not runs:
        raise NoSuchRun(f"there is no run {wanted!r}: the store has no runs yet")
    newest = ", ".join(run.id for run in runs[:SHOWN])
    raise NoSuchRun(f"there is no run {wanted!r} in this store; the newest are: {newest}")
