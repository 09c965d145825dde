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
from dashboard.data.incident_window import MOST, went_to
from dashboard.data.timeline import timeline
from dashboard.figures.compute import compute_figure
from dashboard.figures.curves import run_figure
from dashboard.figures.incident import incident_figure
from dashboard.figures.marks import Marks
from dashboard.report import summary
from dashboard.report.still import still
from dashboard.report.story import MOST_EPISODES, MOST_PICTURES, Episode, Story
from db.models import Intervention

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


def render(story: Story, episodes: Iterable[Episode]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    known, zone = story.known, story.zone
    return environment.get_template("report.html.jinja").render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        run=known.run,
        title=formatting.run_title(known.run),
        state=summary.state(known, story.written_at),
        about=_about(known),
        written=clock.moment(story.written_at, zone),
        zone=str(zone),
        sentences=summary.sentences(story),
        waiting=summary.waiting(known),
        numbers=_numbers(story),
        curves=_curves(story),
        num_unmarked=max(0, len(known.events) - MOST_EVENTS),
        without=[formatting.metric_name(name) for name in story.without],
        incidents=_incidents(known),
        episodes=_episodes(known, episodes, zone),
        num_left=max(0, len(known.incidents) - MOST_EPISODES),
        lost=_lost(story),
        cost=_cost(known),
        cost_picture=_cost_picture(known),
        tables=_tables(known, zone),
    )  # fmt: skip


def _about(known: RunFacts) -> list[str]:
    run = known.run
    told = [f"run {run.id}", run.host, formatting.hardware(run), run.git_commit and f"commit {run.git_commit[:10]}"]
    return [part for part in told if part]


def _numbers(story: Story) -> list[tuple[str, str]]:
    known, lost = story.known, summary.lost_in_all(story)
    loss = story.curves.get("loss")
    measured = summary.last_of(story.curves.get(held_out.LOSS))
    told = [
        (formatting.steps_label(known.progress.total), formatting.steps(known.progress.done)),
        ("Tokens", formatting.large(known.newest.get("tokens"))),
        ("Duration", formatting.duration(summary.seconds_of(known, story.written_at))),
        ("Loss at the end", formatting.number(summary.recent(loss.live)[0] if loss and len(loss.live) else None)),
        ("Held-out loss", formatting.number(measured[1]) if measured else None),
        ("Incidents", formatting.steps(len(known.incidents))),
        ("Steps given up", summary.with_share(formatting.steps(lost.steps), lost.steps_share)),
        ("Time given up", summary.with_share(formatting.duration(lost.seconds), lost.seconds_share)),
    ]
    return [(name, text) for name, text in told if text is not None]


def _curves(story: Story) -> Iterator[Markup]:
    """A few panels a picture."""
    names, known = list(story.curves), story.known
    events = known.events[-MOST_EVENTS:]
    marks = Marks(known.incidents, known.interventions, known.orders, events, known.progress.done - 1)
    for first in range(0, len(names), TOGETHER):
        some = names[first : first + TOGETHER]
        figure = run_figure({name: story.curves[name] for name in some}, marks)
        label = "Curves of the run: " + ", ".join(map(formatting.metric_name, some))
        yield Markup(still(figure, name=f"curves-{first}", label=label, height=int(SHORT * figure.layout.height)))


def _incidents(known: RunFacts) -> Table:
    deeds: dict[int, list[str]] = {}
    for each in known.interventions:
        deeds.setdefault(each.incident or 0, []).append(f"{each.kind} {each.state}")
    rows = [
        (
            each.number,
            formatting.incident_kind(each.kind),
            formatting.steps(each.onset_step),
            formatting.steps(each.detected_step),
            formatting.number(each.score),
            each.outcome or each.state,
            ", ".join(deeds.get(each.number, ["nothing"])),
        )
        for each in known.incidents
    ]
    return Table(("Incident", "Kind", "Onset", "Detected", "Score", "Outcome", "What was done"), rows)


def _episodes(known: RunFacts, ranked: Iterable[Episode], zone: tzinfo) -> list[dict[str, Any]]:
    """In the order of their numbers; the pictures, as long as there is room, in the order in which they come."""
    told, room = [], MOST_BYTES
    for each in ranked:
        picture = _picture(known, each)
        room -= len(picture or "")
        told.append(_episode(known, each, zone) | _shown_or_not(each, picture if room >= 0 else None))
    return sorted(told, key=lambda one: one["number"])


def _episode(known: RunFacts, episode: Episode, zone: tzinfo) -> dict[str, Any]:
    incident, deeds, seen = episode.incident, episode.deeds, episode.seen
    times = {} if seen is None or seen.led.times is None else dict(
        zip(seen.led.steps.tolist(), seen.led.times.tolist(), strict=True)
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
            for each in timeline(incident, deeds, known.orders, times.get)
        ],
        "reasons": incident.details.get("reasons", []),
        "deeds": [_deed(known, each) for each in deeds],
        "skipped": [
            formatting.batches(each.skip_from, each.skip_to) for each in deeds if went_to(known, each) is not None
        ],
        "verdict": verdict and {
            "sentence": verdict.get("sentence", ""),
            "cause": cause.cause(verdict),
            "culprits": cause.culprits(verdict),
            "arms": shown(pd.DataFrame(cause.arms(verdict)), zone),
        },
    }  # fmt: skip


def _deed(known: RunFacts, each: Intervention) -> dict[str, Any]:
    return {
        "name": f"Intervention {each.number}, attempt {each.attempt}",
        "state": each.state,
        "sentence": formatting.intervention_sentence(each, known.orders.get(each.number)),
        "reasons": each.details.get("reasons", []),
    }


def _picture(known: RunFacts, episode: Episode) -> Markup | None:
    incident, seen = episode.incident, episode.seen
    if seen is None or not len(seen.led):
        return None
    forks = [went for each in episode.deeds if (went := went_to(known, each)) is not None]
    figure = incident_figure(seen, incident, episode.deeds, forks[-1] if forks else None, None)
    label = f"Signals around incident {incident.number}"
    height = int(SHORT * figure.layout.height)
    return Markup(still(figure, name=f"incident-{incident.number}-picture", label=label, height=height))


def _shown_or_not(episode: Episode, picture: Markup | None) -> dict[str, Any]:
    """The picture and what stands below it, or why there is none."""
    seen = episode.seen
    if picture is not None and seen is not None:
        all_of_it = "" if seen.whole else f", which is not all of it: at most {MOST:,} are read"
        return {"picture": picture, "caption": f"Steps {seen.first:,} to {seen.last:,}{all_of_it}."}
    if seen is not None and not len(seen.led):
        return {"picture": None, "caption": "No picture: the store has no steps here any more."}
    why = f"at most {MOST_PICTURES} incidents are drawn, and no more than a mail can carry"
    return {"picture": None, "caption": f"No picture: {why}. It stands on the dashboard."}


def _lost(story: Story) -> Table | None:
    """One row for each way back, and all of them together."""
    if not story.lost:
        return None
    known, whole = story.known, summary.lost_in_all(story)
    rows = [
        (
            f"{way.reason}" + (f", incident {way.incident}" if way.incident else ""),
            formatting.steps(way.fork),
            formatting.steps(way.steps),
            formatting.large(way.tokens),
            _flops(summary.flops(way.tokens, known)),
            formatting.duration(way.seconds),
        )
        for way in story.lost[:MOST_ROWS]
    ]
    rows.append(
        (
            "all",
            "",
            summary.with_share(formatting.steps(whole.steps), whole.steps_share),
            formatting.large(whole.tokens),
            _flops(whole.flops),
            summary.with_share(formatting.duration(whole.seconds), whole.seconds_share),
        )
    )
    names = ("Why", "Back to step", "Steps", "Tokens", "FLOPs (6ND)", "Time until it was there again")
    return Table(names, rows, max(0, len(story.lost) - MOST_ROWS), last_is_total=True)


def _flops(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _cost(known: RunFacts) -> list[tuple[str, str]]:
    cost = Compute(compute.num_parameters(known.run.config), known.newest.get("tokens"))
    told = [
        ("Parameters", formatting.large(cost.parameters)),
        ("Tokens", formatting.large(cost.tokens)),
        ("Tokens per parameter", formatting.number(cost.tokens_per_parameter)),
        ("FLOPs (6ND)", _flops(cost.flops)),
        ("Model FLOPs utilisation", None if known.mfu is None else formatting.percent(known.mfu)),
    ]
    return [(name, text) for name, text in told if text is not None]


def _cost_picture(known: RunFacts) -> Markup | None:
    figure = compute_figure(Compute(compute.num_parameters(known.run.config), known.newest.get("tokens")))
    return None if figure is None else Markup(still(figure, name="cost", label="Compute beside published runs"))


def _tables(known: RunFacts, zone: tzinfo) -> list[tuple[str, Table]]:
    """What is looked up, at the end."""
    made = {
        "Interventions": tables.interventions(known),
        "Skip ledger": tables.skip_ledger(known),
        "Events": tables.events(known),
        "Segments": tables.segments(known),
    }
    settings = shown(tables.configuration(known, zone), zone, most=MOST_SETTINGS)
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
