"""The runs that a box offers: a browser is not sent thousands. Where there are more, a search finds the others."""

from collections.abc import Sequence

from dashboard import formatting
from dashboard.data import run_pages
from dashboard.data.run_pages import FoundRuns
from dashboard.views.search_box import search_box, show_problems
from db.models import Run
from db.runs.filters import RunFilter
from lossguard.vocabulary import run_search
from lossguard.vocabulary.run_search import RunOrder

MAX_OFFERED = 50


def offered_runs(*, key: str) -> Sequence[Run]:
    """The newest runs, archived ones too; where there are more than MAX_OFFERED, those that the viewer searched for.

    `key`: of the box for the search, which is shown only then.
    """
    num_runs = run_pages.num_runs()
    search = run_search.Search()
    if num_runs > MAX_OFFERED:
        placeholder = f"search {num_runs:,} runs"
        search = run_search.parse(search_box("Find runs", key=key, placeholder=placeholder))
    found = run_pages.found(RunFilter(search=search), RunOrder.NEWEST, MAX_OFFERED)
    show_problems([*search.problems, *_sentences(search, found)])
    return [row.run for row in found.rows]


def _sentences(search: run_search.Search, found: FoundRuns) -> list[str]:
    """Return what a viewer who searched has to know about the runs that are offered."""
    if not search.terms or 0 < found.total <= MAX_OFFERED:
        return []
    if not found.total:
        return ["No run matches."]
    return [f"{formatting.plural(found.total, 'run')} found; the {MAX_OFFERED} newest are offered."]
