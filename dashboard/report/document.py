"""A story as one HTML file that loads nothing and runs nothing. Pure.

Everything that people wrote (names, reasons, configurations) goes through Jinja's escaping; the pictures are the only
markup that does not, and they escape their own text. The page's own policy forbids scripts and connections besides.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from dashboard import clock, formatting
from dashboard.data import cause, compute, held_out, tables
from dashboard.data.before_after import before_and_after
from dashboard.data.compute import Compute
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import MAX_WINDOW_STEPS, rewound_step
from dashboard.data.timeline import timeline
from dashboard.figures.compute import compute_figure
from dashboard.figures.curves import run_figure
from dashboard.figures.incident import incident_figure
from dashboard.figures.marks import Marks
from dashboard.report import summary
from dashboard.report.contents import MAX_INCIDENT_SECTIONS, MAX_PICTURES, ReportContents, ReportIncident
from dashboard.report.svg import render_svg
from db.models import Intervention
from lossguard.metrics import short_name

HERE = Path(__file__).parent
TOGETHER = 4
"""Curves in one picture: as many as a sheet of paper holds."""
MOST_ROWS, MOST_SETTINGS, MOST_LETTERS = 200, 2000, 1000
"""Rows of a table and of the configuration, letters of a cell; the rest is counted."""
MOST_EVENTS = 1000
"""Events that are marked on the curves: the newest."""
MOST_BYTES = 7_000_000
"""Of the incidents' pictures together."""
SHORT = 0.64
"""Height of a picture, of that on its page: so that the curves stand on the first sheet, below the summary."""


@dataclass(frozen=True, slots=True)
class Table:
    """As the template shows it."""

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: int = 0
    """Rows that are left out."""
    last_is_total: bool = False


def render(story: ReportContents, report_incidents: Iterable[ReportIncident]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    facts, zone = story.facts, story.zone
    return environment.get_template("report.html.jinja").render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        run=facts.run,
        title=formatting.run_title(facts.run),
        state=summary.state(facts, story.written_at),
        about=_about(facts),
        written=clock.moment(story.written_at, zone),
        zone=str(zone),
        sentences=summary.sentences(story),
        waiting=summary.waiting(facts),
        numbers=_numbers(story),
        curves=_curves(story),
        num_unmarked=max(0, len(facts.events) - MOST_EVENTS),
        without=[short_name(name) for name in story.without],
        incidents=_incidents(facts),
        report_incidents=_episodes(facts, report_incidents, zone),
        num_left=max(0, len(facts.incidents) - MAX_INCIDENT_SECTIONS),
        lost=_lost(story),
        cost=_cost(facts),
        cost_picture=_cost_picture(facts),
        tables=_tables(facts, zone),
    )  # fmt: skip


def _about(facts: RunFacts) -> list[str]:
    run = facts.run
    told = [f"run {run.id}", run.host, formatting.hardware(run), run.git_commit and f"commit {run.git_commit[:10]}"]
    return [part for part in told if part]


def _numbers(story: ReportContents) -> list[tuple[str, str]]:
    facts, lost = story.facts, summary.lost_in_all(story)
    loss = story.curves.get("loss")
    measured = summary.last_of(story.curves.get(held_out.HELD_OUT_LOSS))
    told = [
        (formatting.steps_label(facts.progress.total), formatting.count(facts.progress.done)),
        ("Tokens", formatting.abbreviated(facts.newest.get("tokens"))),
        ("Duration", formatting.duration(summary.seconds_of(facts, story.written_at))),
        ("Loss at the end", formatting.number(summary.recent(loss.live)[0] if loss and len(loss.live) else None)),
        ("Held-out loss", formatting.number(measured[1]) if measured else None),
        ("Incidents", formatting.count(len(facts.incidents))),
        ("Steps given up", summary.with_share(formatting.count(lost.steps), lost.steps_share)),
        ("Time given up", summary.with_share(formatting.duration(lost.seconds), lost.seconds_share)),
    ]
    return [(name, text) for name, text in told if text is not None]


def _curves(story: ReportContents) -> Iterator[Markup]:
    """A few panels a picture."""
    names, facts = list(story.curves), story.facts
    events = facts.events[-MOST_EVENTS:]
    marks = Marks(facts.incidents, facts.interventions, facts.orders, events, facts.progress.done - 1)
    for first in range(0, len(names), TOGETHER):
        some = names[first : first + TOGETHER]
        figure = run_figure({name: story.curves[name] for name in some}, marks)
        label = "Curves of the run: " + ", ".join(map(short_name, some))
        yield Markup(render_svg(figure, name=f"curves-{first}", label=label, height=int(SHORT * figure.layout.height)))


def _incidents(facts: RunFacts) -> Table:
    deeds: dict[int, list[str]] = {}
    for each in facts.interventions:
        deeds.setdefault(each.incident or 0, []).append(f"{each.kind} {each.state}")
    rows = [
        (
            each.number,
            formatting.incident_kind(each.kind),
            formatting.count(each.onset_step),
            formatting.count(each.detected_step),
            formatting.number(each.score),
            each.outcome or each.state,
            ", ".join(deeds.get(each.number, ["nothing"])),
        )
        for each in facts.incidents
    ]
    return Table(("Incident", "Kind", "Onset", "Detected", "Score", "Outcome", "What was done"), rows)


def _episodes(facts: RunFacts, ranked: Iterable[ReportIncident], zone: tzinfo) -> list[dict[str, Any]]:
    """In the order of their numbers; the pictures, as long as there is room, in the order in which they come."""
    told, room = [], MOST_BYTES
    for each in ranked:
        picture = _picture(facts, each)
        room -= len(picture or "")
        told.append(_episode(facts, each, zone) | _shown_or_not(each, picture if room >= 0 else None))
    return sorted(told, key=lambda one: one["number"])


def _episode(facts: RunFacts, report_incident: ReportIncident, zone: tzinfo) -> dict[str, Any]:
    incident, deeds, seen = report_incident.incident, report_incident.deeds, report_incident.seen
    times = {} if seen is None or seen.original.times is None else dict(
        zip(seen.original.steps.tolist(), seen.original.times.tolist(), strict=True)
    )  # fmt: skip
    verdict = incident.verdict
    return {
        "number": incident.number,
        "kind": formatting.incident_kind(incident.kind),
        "state": incident.state,
        "outcome": incident.outcome,
        "sentence": formatting.incident_sentence(incident),
        "numbers": shown(before_and_after(seen, incident), zone) if seen is not None and seen.bands else None,
        "course": [
            (each.name, "" if each.step is None else f"step {each.step:,}",
             "" if each.at is None else clock.moment(each.at, zone), each.note)
            for each in timeline(incident, deeds, facts.orders, times.get)
        ],
        "reasons": incident.details.get("reasons", []),
        "deeds": [_deed(facts, each) for each in deeds],
        "skipped": [
            formatting.batches(each.skip_from, each.skip_to) for each in deeds if rewound_step(facts, each) is not None
        ],
        "verdict": verdict and {
            "sentence": verdict.get("sentence", ""),
            "cause": cause.describe(verdict),
            "culprits": cause.culprits(verdict),
            "arms": shown(pd.DataFrame(cause.arms(verdict)), zone),
        },
    }  # fmt: skip


def _deed(facts: RunFacts, each: Intervention) -> dict[str, Any]:
    return {
        "name": f"Intervention {each.number}, attempt {each.attempt}",
        "state": each.state,
        "sentence": formatting.intervention_sentence(each, facts.orders.get(each.number)),
        "reasons": each.details.get("reasons", []),
    }


def _picture(facts: RunFacts, report_incident: ReportIncident) -> Markup | None:
    incident, seen = report_incident.incident, report_incident.seen
    if seen is None or not len(seen.original):
        return None
    forks = [went for each in report_incident.deeds if (went := rewound_step(facts, each)) is not None]
    figure = incident_figure(seen, incident, report_incident.deeds, forks[-1] if forks else None, None)
    label = f"Signals around incident {incident.number}"
    height = int(SHORT * figure.layout.height)
    return Markup(render_svg(figure, name=f"incident-{incident.number}-picture", label=label, height=height))


def _shown_or_not(report_incident: ReportIncident, picture: Markup | None) -> dict[str, Any]:
    """The picture and what stands below it, or why there is none."""
    seen = report_incident.seen
    if picture is not None and seen is not None:
        all_of_it = "" if seen.complete else f", which is not all of it: at most {MAX_WINDOW_STEPS:,} are read"
        return {"picture": picture, "caption": f"Steps {seen.first:,} to {seen.last:,}{all_of_it}."}
    if seen is not None and not len(seen.original):
        return {"picture": None, "caption": "No picture: the store has no steps here any more."}
    why = f"at most {MAX_PICTURES} incidents are drawn, and no more than a mail can carry"
    return {"picture": None, "caption": f"No picture: {why}. It stands on the dashboard."}


def _lost(story: ReportContents) -> Table | None:
    """One row for each way back, and all of them together."""
    if not story.lost:
        return None
    facts, whole = story.facts, summary.lost_in_all(story)
    rows = [
        (
            f"{way.reason}" + (f", incident {way.incident}" if way.incident else ""),
            formatting.count(way.fork),
            formatting.count(way.steps),
            formatting.abbreviated(way.tokens),
            formatting.scientific(summary.flops(way.tokens, facts)),
            formatting.duration(way.seconds),
        )
        for way in story.lost[:MOST_ROWS]
    ]
    rows.append(
        (
            "all",
            "",
            summary.with_share(formatting.count(whole.steps), whole.steps_share),
            formatting.abbreviated(whole.tokens),
            formatting.scientific(whole.flops),
            summary.with_share(formatting.duration(whole.seconds), whole.seconds_share),
        )
    )
    names = ("Why", "Back to step", "Steps", "Tokens", "FLOPs (6ND)", "Time until it was there again")
    return Table(names, rows, max(0, len(story.lost) - MOST_ROWS), last_is_total=True)


def _cost(facts: RunFacts) -> list[tuple[str, str]]:
    cost = Compute(compute.num_parameters(facts.run.config), facts.newest.get("tokens"))
    told = [
        ("Parameters", formatting.abbreviated(cost.parameters)),
        ("Tokens", formatting.abbreviated(cost.tokens)),
        ("Tokens per parameter", formatting.number(cost.tokens_per_parameter)),
        ("FLOPs (6ND)", formatting.scientific(cost.flops)),
        ("Model FLOPs utilisation", None if facts.mfu is None else formatting.percent(facts.mfu)),
    ]
    return [(name, text) for name, text in told if text is not None]


def _cost_picture(facts: RunFacts) -> Markup | None:
    figure = compute_figure(Compute(compute.num_parameters(facts.run.config), facts.newest.get("tokens")))
    return None if figure is None else Markup(render_svg(figure, name="cost", label="Compute beside published runs"))


def _tables(facts: RunFacts, zone: tzinfo) -> list[tuple[str, Table]]:
    """What is looked up, at the end."""
    made = {
        "Interventions": tables.interventions(facts),
        "Skip ledger": tables.skip_ledger(facts),
        "Events": tables.events(facts),
        "Segments": tables.segments(facts),
    }
    settings = shown(tables.configuration(facts, zone), zone, most=MOST_SETTINGS)
    looked_up = [(title, shown(rows, zone)) for title, rows in made.items()]
    return [("Configuration, versions and hardware", settings), *looked_up]


def shown(rows: pd.DataFrame, zone: tzinfo, *, most: int = MOST_ROWS) -> Table:
    told = tables.in_zone(rows, zone)
    few = told.head(most)
    cells = [[_short(cell) for cell in row] for row in few.itertuples(index=False, name=None)]
    return Table(list(few.columns), cells, len(told) - len(few))


def _short(cell: Any) -> str:
    text = str(cell)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} .. ({len(text):,} characters)"
