"""Inputs of the tools of a run's chart: the title of a picture, and the file with the values in view."""

from dashboard import formatting
from dashboard.data.facts import RunFacts
from dashboard.data.store import database_url
from dashboard.data.values_file import VALUES_ROUTE, ValuesFile, values_files


def title(facts: RunFacts) -> str:
    """Return the title as plotly writes it."""
    return formatting.escape_plotly(formatting.run_label(facts.run))


def csv_url(facts: RunFacts, metrics: tuple[str, ...], window: tuple[int, int] | None, *, discarded: bool) -> str:
    """Return the URL of the CSV file with the values in view."""
    file = ValuesFile(database_url(), facts.run.id, metrics, window, discarded)
    return VALUES_ROUTE + values_files.name(file)
