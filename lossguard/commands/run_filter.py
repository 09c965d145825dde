"""Which runs `lossguard runs --search` means: words, and conditions on what the list knows of a run. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from lossguard.config_paths import flattened
from lossguard.errors import ConfigurationError
from lossguard.protocol import decode_number
from lossguard.run_search import ARCHIVED, Search, parse, settings_or_metric

Run = Mapping[str, Any]

FIELDS: Mapping[str, Callable[[Run], list[Any]]] = {
    "state": lambda run: [run["state"]],
    "project": lambda run: [run["project"]],
    "name": lambda run: [run["name"] or run["id"]],
    "id": lambda run: [run["id"]],
    "tag": lambda run: list(run["tags"]),
    "note": lambda run: [run["note"] or ""],
    ARCHIVED: lambda run: [run["archived_at"] is not None],
    "steps": lambda run: [0 if run["step"] is None else run["step"] + 1],
    "open_incidents": lambda run: [run["open_incidents"]],
    "waiting": lambda run: [run["waiting"]],
}


def read(text: str) -> Search:
    """The search. Raises ConfigurationError for what cannot be read."""
    search = parse(text)
    if search.problems:
        raise ConfigurationError(f"--search: {' '.join(search.problems)}")
    return search


def matches(search: Search, run: Run) -> bool:
    """Whether a run of the list, with its configuration, matches."""
    words = [run["project"], run["name"] or "", run["id"], run["note"] or "", *run["tags"]]
    return search.matches("\n".join(words), lambda name: values_of(run, name))


def values_of(run: Run, name: str) -> list[Any]:
    """What a name means: a field, a setting, or the newest value of a metric; the first that there is."""
    if name in FIELDS:
        return FIELDS[name](run)
    return settings_or_metric(name, flattened(run["config"]), lambda metric: decode_number(run["metrics"].get(metric)))
