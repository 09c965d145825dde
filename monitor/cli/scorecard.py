"""python -m monitor scorecard: what the policy would have done in runs where it gave no orders, and what happened.

python -m monitor scorecard                              all runs in observe and approve, and those that only report
python -m monitor scorecard --project gpt --since 2026-11-01 --json
python -m monitor scorecard --run RUN                    with the sites of one run
"""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from lossguard.vocabulary.protocol import plain_json
from monitor.cli.store import exit_with, open_store
from monitor.detection.scorecard import wording
from monitor.detection.scorecard.scored_run import ScoredRun
from monitor.detection.scorecard.totals import Totals, total
from monitor.scored_runs import Scored, ScoredRuns


def scorecard(
    project: Annotated[str | None, typer.Option(help="only the runs of this project")] = None,
    run: Annotated[str | None, typer.Option(help="only this run, with its sites")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="only runs that reported on this day (UTC) or later")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")] = False,
) -> None:
    """Print what the policy would have done in auto, and what happened without it."""
    found = _read(project, run, since)
    scored = [each.score for each in found if each.score is not None]
    num_auto = len(found) - len(scored)
    if as_json:
        typer.echo(json.dumps(plain_json(wording.to_dict(scored, num_auto=num_auto)), allow_nan=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has no width: do not wrap lines for one
    console.print(wording.sentence(total(scored)))
    if num_auto:
        console.print(wording.not_scored(num_auto))
    if scored:
        console.print(totals_table(scored))
        console.print(runs_table(scored) if run is None else sites_table(scored))


def _read(project: str | None, run: str | None, since: datetime | None) -> list[Scored]:
    begin = None if since is None else since.replace(tzinfo=UTC).timestamp()
    with open_store() as session:
        found = ScoredRuns().read(session, project=project, run_id=run, since=begin)
    if run is not None and not found:
        chosen = " in this project and time" if project is not None or since is not None else ""
        raise exit_with(f"the store has no run {run!r}{chosen}; the dashboard lists all runs")
    return found


CELLS: dict[str, Callable[[Totals], object]] = {
    "runs": lambda of: of.runs,
    "GPU-hours": lambda of: wording.number_or_dash(of.gpu_hours or None),
    "sites": lambda of: of.sites,
    "would act": lambda of: of.actions,
    "false": lambda of: of.false_actions,
    "per 1,000 GPU-hours": wording.rate,
    "agreed": lambda of: f"{of.agreed} of {of.compared}",
    "missed": lambda of: of.missed,
    "GPU-hours saved": lambda of: wording.number_or_dash(of.gpu_hours_saved),
}
"""Columns of totals."""


def totals_table(scored: Sequence[ScoredRun]) -> Table:
    """One row per project, and one for all."""
    table = _table("project", *CELLS)
    projects = wording.by_project(scored)
    for name, runs in projects.items():
        table.add_row(name, *_cells(total(runs)))
    if len(projects) > 1:
        table.add_row("all", *_cells(total(scored)), style="bold")
    return table


def runs_table(scored: Sequence[ScoredRun]) -> Table:
    """One row per run with a site."""
    table = _table("run", "mode", *[*CELLS][1:])
    for run in scored:
        if run.sites:
            table.add_row(run.id, run.mode, *_cells(total([run]))[1:])
    return table


def sites_table(scored: Sequence[ScoredRun]) -> Table:
    """One row per site."""
    table = _table("incidents", "kind", "onset", "in auto", "what happened", "GPU-hours saved")
    for run in scored:
        for each in run.sites:
            site, saved = each.site, None if each.balance is None else run.hours(each.balance.saved)
            numbers = ", ".join(str(incident.number) for incident in site.incidents)
            cells = (numbers, site.incidents[0].kind.value, str(site.onset_step), wording.action_text(site.action))
            table.add_row(*cells, wording.ENDINGS[each.ending], wording.number_or_dash(saved))
    return table


def _table(*names: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in names))


def _cells(totals: Totals) -> list[str]:
    return [str(cell(totals)) for cell in CELLS.values()]
