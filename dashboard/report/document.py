"""A report as one HTML file that loads nothing, and runs only what draws its pictures. Pure.

Everything that people wrote (names, reasons, configurations) goes through Jinja's escaping; only the pictures are
inserted as markup (parts.py). The page's content security policy forbids other scripts, and connections.
"""

from collections.abc import Iterable
from pathlib import Path

import jinja2
from markupsafe import Markup

from dashboard import formatting
from dashboard.data import pending, tables
from dashboard.data.comparison import held_out
from dashboard.data.facts import RunFacts
from dashboard.figures.compute import CAUSE_NAMES, compute_figure
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks, num_skipped
from dashboard.report import summary
from dashboard.report.contents import ReportContents, ReportIncident
from dashboard.report.parts import (
    PICTURE_SCALE,
    POLICY,
    SCRIPTS,
    ReportTable,
    bounded_table,
    incident_sections,
    picture,
)
from db.goodput.accounting import Breakdown
from lossguard.vocabulary.metrics import short_name

HERE = Path(__file__).parent
CURVES_PER_PICTURE = 4
"""Maximum curves of a picture: they fit on a sheet of paper."""


def render(contents: ReportContents, incidents: Iterable[ReportIncident]) -> str:
    """The HTML; `incidents` are taken one after the other, the most important first."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_visible,
    )  # fmt: skip
    facts, zone, limits = contents.facts, contents.zone, contents.limits
    sections, curves = incident_sections(contents, incidents), _curves(contents)
    used = compute_figure(facts.compute)
    compute_picture = None if used is None else picture(used, label="Compute beside published runs")
    run = facts.run
    about = [f"run {run.id}", run.host, formatting.hardware(run), run.git_commit and f"commit {run.git_commit[:10]}"]
    has_picture = bool(curves or compute_picture or any(each["picture"] for each in sections))
    return environment.get_template("report.html.jinja").render(
        policy=Markup(POLICY),
        scripts=[Markup(script) for script in SCRIPTS if has_picture],
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        title=formatting.run_title(facts.run),
        verdict=facts.verdict,
        about=[part for part in about if part],
        written=formatting.moment(contents.written_at, zone),
        zone=str(zone),
        sentences=summary.sentences(contents),
        pending=pending.sentences(facts),
        numbers=_numbers(contents),
        curves=curves,
        num_unmarked=max(0, len(facts.events) - limits.max_events),
        omitted_curves=[short_name(name) for name in contents.omitted_curves],
        incidents=_incidents(facts),
        sections=sections,
        num_without_section=len(facts.incidents) - len(sections),
        goodput=_goodput(contents.breakdown),
        lost=_lost(contents),
        compute=_compute(facts),
        compute_picture=compute_picture,
        tables=_tables(contents),
    )


REFUSAL = Markup(
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{run}</title><p>There is no report of run {run}: {why}'
)


def refusal(run_id: str, why: str) -> str:
    """A page that says why a report cannot be made."""
    return str(REFUSAL.format(run=formatting.visible(run_id), why=formatting.visible(why)))


def _visible(value: object) -> object:
    """Text with marks of direction as escapes; markup remains markup."""
    return type(value)(formatting.visible(value)) if isinstance(value, str) else value


def _numbers(contents: ReportContents) -> list[tuple[str, str]]:
    facts, lost = contents.facts, summary.lost_compute(contents.facts, contents.rewinds, contents.written_at)
    loss = contents.curves.get("loss")
    measured = summary.last_finite(contents.curves.get(held_out.HELD_OUT_LOSS))
    skipped = contents.skipped
    numbers = [
        (formatting.steps_label(facts.progress.total), formatting.count(facts.progress.done)),
        ("Tokens", formatting.abbreviated(facts.newest.get("tokens"))),
        ("Duration", formatting.duration(summary.duration(facts, contents.written_at))),
        ("Final loss", formatting.number(summary.recent_mean(loss.live)[0] if loss and len(loss.live) else None)),
        ("Held-out loss", formatting.number(measured[1]) if measured else None),
        ("Goodput", formatting.percent(contents.breakdown.goodput) if contents.breakdown.total > 0 else None),
        ("Incidents", formatting.count(len(facts.incidents))),
        ("Steps discarded", summary.with_share(formatting.count(lost.steps), lost.steps_share)),
        ("Skipped updates", None if skipped is None else formatting.count(num_skipped(skipped.live))),
        ("Time lost", summary.with_share(formatting.duration(lost.seconds), lost.seconds_share)),
    ]
    return [(name, text) for name, text in numbers if text is not None]


def _curves(contents: ReportContents) -> list[Markup]:
    names, pictures = list(contents.curves), []
    marks = Marks.of(contents.facts, skipped=contents.skipped, most=contents.limits.max_events)
    for first in range(0, len(names), CURVES_PER_PICTURE):
        part = names[first : first + CURVES_PER_PICTURE]
        figure = run_figure({name: contents.curves[name] for name in part}, marks)
        label = "Curves of the run: " + ", ".join(map(short_name, part))
        pictures.append(picture(figure, label=label, scale=PICTURE_SCALE))
    return pictures


def _incidents(facts: RunFacts) -> ReportTable:
    interventions: dict[int, list[str]] = {}
    for each in facts.interventions:
        interventions.setdefault(each.incident or 0, []).append(f"{each.kind} {each.state}")
    rows = [
        (
            each.number,
            formatting.incident_kind(each.kind),
            formatting.count(each.onset_step),
            formatting.count(each.detected_step),
            formatting.number(each.score),
            pending.standing(facts, each),
            ", ".join(interventions.get(each.number, ["none"])),
        )
        for each in facts.incidents
    ]
    return ReportTable(("Incident", "Kind", "Onset", "Detected", "Score", "Outcome", "Interventions"), rows)


def _goodput(breakdown: Breakdown) -> ReportTable | None:
    """Return one row for each cause that took any time, and the total."""
    if breakdown.total <= 0:
        return None
    rows = [
        (CAUSE_NAMES[cause], formatting.duration(breakdown.seconds[cause]), formatting.percent(breakdown.share(cause)))
        for cause in breakdown.largest_first()
    ]
    rows.append(("total", formatting.duration(breakdown.total), formatting.percent(1.0)))
    return ReportTable(("Used for", "Time", "Share"), rows, last_is_total=True)


def _lost(contents: ReportContents) -> ReportTable | None:
    """Return one row for each rewind, and the total."""
    if not contents.rewinds:
        return None
    facts, max_rows = contents.facts, contents.limits.max_rows
    total = summary.lost_compute(facts, contents.rewinds, contents.written_at)
    rows = [
        (
            f"{each.reason}" + (f", incident {each.incident}" if each.incident else ""),
            formatting.count(each.fork_step),
            formatting.count(each.steps),
            formatting.abbreviated(each.tokens),
            formatting.scientific(summary.flops(each.tokens, facts)),
            formatting.duration(each.seconds),
        )
        for each in contents.rewinds[:max_rows]
    ]
    rows.append(
        (
            "total",
            "",
            summary.with_share(formatting.count(total.steps), total.steps_share),
            formatting.abbreviated(total.tokens),
            formatting.scientific(total.flops),
            summary.with_share(formatting.duration(total.seconds), total.seconds_share),
        )
    )
    names = ("Reason", "Rewound to step", "Steps discarded", "Tokens", "FLOPs (6ND)", "Time lost")
    return ReportTable(names, rows, max(0, len(contents.rewinds) - max_rows), last_is_total=True)


def _compute(facts: RunFacts) -> list[tuple[str, str]]:
    used = facts.compute
    numbers = [
        ("Parameters", formatting.abbreviated(used.parameters)),
        ("Tokens", formatting.abbreviated(used.tokens)),
        ("Tokens per parameter", formatting.number(used.tokens_per_parameter)),
        ("FLOPs (6ND)", formatting.scientific(used.flops)),
    ]
    return numbers if facts.mfu is None else [*numbers, ("Model FLOPs utilisation", formatting.percent(facts.mfu))]


def _tables(contents: ReportContents) -> list[tuple[str, ReportTable]]:
    """Reference material at the end of the report: heading and table."""
    facts = contents.facts
    frames = {
        "Interventions": tables.interventions(facts),
        "Skip ledger": tables.skip_ledger(facts),
        "Notes": tables.notes(facts),
        "Events": tables.events(facts),
        "Segments": tables.segments(facts),
    }
    configuration = tables.configuration(facts, contents.zone)
    settings = bounded_table(configuration, contents, max_rows=contents.limits.max_settings)
    others = [(title, bounded_table(frame, contents)) for title, frame in frames.items()]
    return [("Configuration, versions and hardware", settings), *others]
