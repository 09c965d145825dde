"""Contents of a report: the run that a person names, read through the same modules as the pages, within limits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dashboard.data import cached, incident_window
from dashboard.data.facts import Curve, RunFacts
from dashboard.data.incident_window import IncidentWindow
from db.goodput.accounting import Breakdown
from db.goodput.rollback_costs import Rewind
from db.models import Incident, Intervention, Run
from lossguard.vocabulary.metrics import CHECKPOINT_SECONDS, EVALUATION_SECONDS, PAUSE_SECONDS, SKIPPED, default_charts
from lossguard.vocabulary.states import IncidentState

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportLimits:
    """Maximum sizes of a report; it says what it leaves out."""

    max_curves: int = 24
    max_events: int = 1000
    """Events marked on the curves: the newest."""
    max_incident_pictures: int = 100
    """Maximum incidents with a picture: open ones, then those with an intervention, then the highest scores."""
    max_picture_bytes: int = 7_000_000
    """Total size of the incidents' pictures, so that the report can be sent by e-mail."""
    max_incident_sections: int = 300
    """The table of incidents lists all of them."""
    max_rows: int = 200
    """Maximum rows of a table."""
    max_settings: int = 2000
    """Rows of the configuration."""
    max_cell_letters: int = 1000
    max_table_letters: int = 200_000
    """Maximum letters of a table; Chromium prints a megabyte of text in ten seconds."""
    max_sections_letters: int = 1_000_000
    """Maximum letters of the sections of all incidents; the least important ones have none beyond it."""
    max_reasons: int = 20
    """Maximum reasons of an incident or an intervention, and rows of the table of a replay."""
    max_reason_letters: int = 500
    """Maximum letters of a reason, and of what a replay found."""


@dataclass(frozen=True, slots=True)
class ReportContents:
    facts: RunFacts
    curves: Mapping[str, Curve]
    omitted_curves: Sequence[str]
    """Metrics beyond `limits.max_curves`."""
    rewinds: Sequence[Rewind]
    breakdown: Breakdown
    """Use of the run's time."""
    written_at: float
    """Unix seconds."""
    zone: tzinfo
    limits: ReportLimits
    skipped: Curve | None = None
    """Number of updates that the optimizer did not take: marked, not a curve of its own."""


@dataclass(frozen=True, slots=True)
class ReportIncident:
    """One incident and its interventions."""

    incident: Incident
    interventions: list[Intervention]
    window: IncidentWindow | None
    """Steps of the picture; None if there is none."""


def read_contents(run_id: str, *, now: float, zone: tzinfo, limits: ReportLimits | None = None) -> ReportContents:
    """Raises StoreUnavailable, and NoSuchRun when the store has no such run (any more)."""
    limits = limits or ReportLimits()
    facts = cached.facts(run_id)
    if facts is None:
        raise NoSuchRun(f"there is no run {run_id!r} in this store")
    names = curve_names(facts.metrics)
    curves = cached.curves(facts, names[: limits.max_curves]).by_metric
    skipped = cached.curves(facts, [SKIPPED]).by_metric[SKIPPED] if SKIPPED in facts.metrics else None
    return ReportContents(
        facts=facts,
        curves=curves,
        omitted_curves=names[limits.max_curves :],
        rewinds=cached.rewinds(facts),
        breakdown=cached.breakdown(facts),
        written_at=now,
        zone=zone,
        limits=limits,
        skipped=skipped,
    )


NOT_DRAWN = (
    *("perplexity", "log_z_max", "z_loss", "tokens", "batch_index", "step_seconds"),  # other curves say the same
    *(CHECKPOINT_SECONDS, EVALUATION_SECONDS, PAUSE_SECONDS, SKIPPED),  # in the goodput, and as marks
)


def curve_names(metrics: Sequence[str]) -> list[str]:
    """The default charts, then all other metrics but NOT_DRAWN."""
    default = default_charts(metrics)
    return default + [name for name in metrics if name not in (*default, *NOT_DRAWN)]


def read_incidents(facts: RunFacts, limits: ReportLimits) -> Iterator[ReportIncident]:
    """The most important first; each is read when it is asked for."""
    for rank, incident in enumerate(ranked(facts)[: limits.max_incident_sections]):
        window = cached.incident_window(facts, incident) if rank < limits.max_incident_pictures else None
        yield ReportIncident(incident, incident_window.interventions_of(facts, incident), window)


def ranked(facts: RunFacts) -> list[Incident]:
    """Open ones, then those with an intervention, then by score."""
    acted_on = {each.incident for each in facts.interventions}

    def rank(incident: Incident) -> tuple[bool, bool, float, int]:
        closed = incident.state == IncidentState.CLOSED
        return (closed, incident.number not in acted_on, -(incident.score or 0.0), -incident.number)

    return sorted(facts.incidents, key=rank)
