"""The tables below a run's curves. Pure."""

from datetime import UTC, datetime, tzinfo
from typing import Any

import pandas as pd

from dashboard import formatting
from dashboard.data.facts import RunFacts
from lossguard.vocabulary import wording
from lossguard.vocabulary.run_search import flattened
from lossguard.vocabulary.secrets import mask_command_line, mask_json
from monitor.detection.interventions import run_policy


def interventions(facts: RunFacts) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Intervention": each.number,
            "Incident": formatting.count(each.incident),
            "Kind": each.kind,
            "State": each.state,
            "Attempt": each.attempt,
            "Rewind to": formatting.count(each.rewind_to),
            "Skipped batches": wording.batches(each.skip_from, each.skip_to),
            "Learning rate scale": formatting.number(each.lr_scale),
            "Remedies": ", ".join(map(str, each.remedies or [])) or "-",
            "Order state": facts.orders[each.number].state if each.number in facts.orders else "-",
            "Decided at": _moment(each.created_at),
        }
        for each in facts.interventions
    )


def skip_ledger(facts: RunFacts) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Skipped batches": wording.batches(each.skip_from, each.skip_to),
            "Batches": each.skip_to - each.skip_from,
            "Reason": each.reason,
            "Time": _moment(each.created_at),
        }
        for each in facts.ledger
    )


def events(facts: RunFacts) -> pd.DataFrame:
    """Declared events and ignored outliers, the newest first."""
    return pd.DataFrame(
        {
            "Step": formatting.count(each.step),
            "Kind": formatting.words(each.kind),
            "Details": formatting.details(each.details),
            "Time": _moment(each.time),
        }
        for each in reversed(facts.events)
    )


def notes(facts: RunFacts) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Step": formatting.count(each.step),
            "Note": each.text,
            "Author": each.author,
            "Time": _moment(each.created_at),
        }
        for each in facts.notes
    )


def segments(facts: RunFacts) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Segment": each.number,
            "Parent": formatting.count(each.parent),
            "Reason": f"{each.reason}, beside the line of another process" if each.is_beside else each.reason,
            "Fork step": formatting.count(each.fork_step),
            "Last step": formatting.count(each.last_step),
            "Steps": formatting.count(each.num_steps),
            "Opened at": _moment(each.opened_at),
        }
        for each in facts.segments
    )


def policy(facts: RunFacts) -> pd.DataFrame:
    """Every value of the run's policy, and where it is set."""
    return pd.DataFrame(
        {"Setting": each.name, "Value": str(each.value), "Set for": f"the {each.layer}" if each.layer else "default"}
        for each in run_policy.values(facts.layers, facts.run.policy)
    )


def configuration(facts: RunFacts, zone: tzinfo) -> pd.DataFrame:
    run = facts.run
    rows: dict[str, Any] = {
        "Command": run.command and mask_command_line(run.command),
        "Commit": run.git_commit,
        "Host": run.host,
        "Devices": ", ".join(map(str, run.devices)),
        "Started at": formatting.moment(run.started_at, zone),
        "Policy": None if run.policy is None else formatting.details(run.policy),
        **flattened(mask_json(run.config)),
        **{f"{name} version": version for name, version in run.versions.items()},
    }
    return pd.DataFrame(
        {"Setting": name, "Value": str(value)} for name, value in rows.items() if value not in (None, "")
    )


def in_zone(rows: pd.DataFrame, zone: tzinfo) -> pd.DataFrame:
    """Times as text in the viewer's time zone."""
    moments = rows.select_dtypes("datetimetz").columns
    return rows.assign(**{name: rows[name].dt.tz_convert(zone).dt.strftime("%Y-%m-%d %H:%M:%S") for name in moments})


def _moment(seconds: float) -> datetime:
    return formatting.local_time(seconds, UTC)
