"""The scorecard in words and as JSON: the same for the command, the API and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lossguard.vocabulary.states import OrderKind
from lossguard.vocabulary.wording import plural
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.scored_run import ScoredRun, ScoredSite
from monitor.detection.scorecard.sites import Action
from monitor.detection.scorecard.totals import Totals, total

ENDINGS: Mapping[Ending, str] = {
    Ending.SAME: "a person did the same",
    Ending.OTHER: "a person did something else",
    Ending.RECOVERED: "recovered by itself, harm not measured",
    Ending.CONTINUED: "nobody acted, back later, harm not measured",
    Ending.WORSE: "went on with a higher loss",
    Ending.DIED: "the run died",
    Ending.OPEN: "not known yet",
    Ending.IN_AUTO: "answered in auto",
}
"""Endings as clauses, in the order of the tables."""
NOTHING = "-"
"""Stands for a number that is not known."""
MIN_HOURS = 10.0
"""GPU-hours from which on a rate is shown."""
LEAST_HOURS = 0.01
"""Fewer hours than this are not worth a digit."""
TOO_LITTLE = "too little data"


def sentence(totals: Totals) -> str:
    """Say what the policy would have done in `auto`, and whether it would have been right, if known."""
    if totals.runs == 0:
        return "There is no run in observe or approve, and none that only reports: nothing can be scored."
    hours = ", whose GPU-hours are not known"
    if totals.gpu_hours != 0:
        unknown = f" (without {plural(totals.runs_without_gpu_hours, 'run')} whose time per step is not known)"
        hours = f" and {number(totals.gpu_hours)} GPU-hours{unknown if totals.runs_without_gpu_hours else ''}"
    where = f"in {plural(totals.runs, 'run')}{hours}"
    if totals.actions == 0:
        return f"In auto it would have done nothing {where}.{_rate(totals)}{_missed(totals)}"
    done = [f"rolled back {plural(totals.rollbacks, 'time')}"] if totals.rollbacks else []
    done += [f"held the run {plural(totals.holds, 'time')}"] if totals.holds else []
    needed = "No action is known to be false."
    if totals.false_actions:
        of = f"{totals.false_actions} of {plural(totals.actions, 'action')}"
        needed = (
            f"At {of} nobody acted, and the loss came back by itself; whether that harmed the run was not measured."
        )
    text = f"In auto it would have {' and '.join(done)} {where}. {needed}{_rate(totals)}"
    if totals.undecided_actions:
        text += f" Of {plural(totals.undecided_actions, 'action')} it is not known yet."
    if totals.compared:
        text += f" People and policy agreed at {totals.agreed} of {plural(totals.compared, 'site')}."
    return text + _missed(totals) + _saved(totals)


def _rate(totals: Totals) -> str:
    shown = rate(totals)
    return "" if shown in (NOTHING, TOO_LITTLE) else f" False actions per 1,000 GPU-hours: {shown}."


def rate(totals: Totals) -> str:
    """The false-action rate with its 95% interval, such as "0.8 (95%: 0.1 to 4.5)"; a dash without known hours.

    Below MIN_HOURS no rate says anything: the interval of none in 10 hours reaches to 369.
    """
    value, interval = totals.false_actions_per_1000_gpu_hours, totals.false_actions_interval
    if value is None or interval is None:
        return NOTHING
    if totals.gpu_hours < MIN_HOURS:
        return TOO_LITTLE
    return f"{number(value)} (95%: {number(interval[0])} to {number(interval[1])})"


def not_scored(num_auto: int) -> str:
    """About the runs that the scorecard leaves out."""
    verb = "is not scored: its orders were" if num_auto == 1 else "are not scored: their orders were"
    return f"{plural(num_auto, 'run')} in auto {verb} carried out."


def _missed(totals: Totals) -> str:
    if totals.missed == 0:
        return ""
    return f" It would have waited at {plural(totals.missed, 'site')} where a person rolled back or the run died."


def _saved(totals: Totals) -> str:
    if totals.gpu_hours_saved is None or abs(totals.gpu_hours_saved) < LEAST_HOURS:
        return ""
    verb = "saved" if totals.gpu_hours_saved >= 0 else "lost"
    at = plural(totals.sites_with_hours, "site")
    return f" About {number(abs(totals.gpu_hours_saved))} GPU-hours would have been {verb}, by an estimate for {at}."


def number(value: float) -> str:
    """Two significant digits below 100 and at most two decimals; no decimals above."""
    if 0 < abs(value) < LEAST_HOURS:
        return f"less than {LEAST_HOURS}" if value > 0 else "about 0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{round(value, 2) or 0:.2g}"


def number_or_dash(value: float | None) -> str:
    """Return the number as text; a dash for None."""
    return NOTHING if value is None else number(value)


def action_text(action: Action | None) -> str:
    """Return a text such as "rewind to 300, skip 61 batches"."""
    if action is None:
        return "wait"
    if action.kind is not OrderKind.ROLLBACK:
        return "hold the run"
    if action.rewind_to is None:
        return "roll back"
    skip = f", skip {plural(action.num_skipped, 'batch', 'batches')}" if action.num_skipped else ""
    return f"rewind to {action.rewind_to}{skip}{' (estimated)' if action.is_estimated else ''}"


def to_dict(runs: Sequence[ScoredRun], *, num_auto: int = 0) -> dict[str, Any]:
    """{"sentence", "totals", "projects", "runs", "runs_in_auto"}; `num_auto`: runs that are not scored."""
    totals = total(runs)
    return {
        "sentence": sentence(totals),
        "totals": asdict(totals),
        "projects": {name: asdict(total(some)) for name, some in by_project(runs).items()},
        "runs": [_run_dict(run) for run in runs],
        "runs_in_auto": num_auto,
    }


def by_project(runs: Sequence[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """The runs by project, in the order of their names."""
    found: dict[str, list[ScoredRun]] = {}
    for run in sorted(runs, key=lambda each: each.project):
        found.setdefault(run.project, []).append(run)
    return found


def _run_dict(run: ScoredRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "project": run.project,
        "name": run.name,
        "mode": run.mode,
        "gpu_hours": run.gpu_hours,
        "step_seconds": run.step_seconds,
        "devices": run.num_devices,
        "devices_assumed": not run.devices_are_known,
        "advisories": run.num_advisories,
        "unreadable_incidents": run.num_unreadable,
        "sites": [_site_dict(run, each) for each in run.sites],
    }


def _site_dict(run: ScoredRun, each: ScoredSite) -> dict[str, Any]:
    action, balance = each.site.action, each.balance
    figures = ("kind", "decided_step", "rewind_to", "skip_from", "skip_to", "is_estimated")
    terms = ("again", "loading", "dropped", "lost", "saved")
    return {
        "incidents": [incident.number for incident in each.site.incidents],
        "kind": each.site.incidents[0].kind.value,
        "onset_step": each.site.onset_step,
        "action": None if action is None else {name: getattr(action, name) for name in figures},
        "ending": each.ending.value,
        "steps": None if balance is None else {name: getattr(balance, name) for name in terms},
        "gpu_hours_saved": None if balance is None else run.hours(balance.saved),
    }
