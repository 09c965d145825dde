"""Configurations of several runs side by side, with what differs marked. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from dashboard import formatting
from db.models import Run
from monitor.detection.interventions import run_policy

ABSENT = "-"
DIFFERENT = "\N{NOT EQUAL TO}"
"""Beside a setting that differs, and in the cells that are not as the baseline's: no colour is needed to see it."""
EVALUATION_SETTINGS = frozenset(
    ("data", "data.path", "data.held_out", "data.batch_size", "dataset", "evaluate_batches", "model.context", "seed")
)
"""Settings that change which text a held-out loss is measured on, or in which pieces: the trainer's, and usual ones."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of several runs, as texts in the runs' order."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def side_by_side(runs: Sequence[Run]) -> list[Setting]:
    """Every setting that one of these runs has, with what each has: configurations first, then where they ran."""
    told = [_told(run) for run in runs]
    names = dict.fromkeys(name for each in told for name in each)
    return [Setting(name, tuple(_text(each[name]) if name in each else ABSENT for each in told)) for name in names]


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted names: {"model": {"width": 128}} is {"model.width": 128}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def table(settings: Sequence[Setting], labels: Sequence[str], baseline: int) -> pd.DataFrame:
    """One row a setting, one column a run; `baseline` is the place of the run that the others are compared with."""
    rows = []
    for setting in settings:
        cells = [_cell(value, value != setting.values[baseline]) for value in setting.values]
        rows.append([DIFFERENT if setting.differs else "", setting.name, *cells])
    return pd.DataFrame(rows, columns=[DIFFERENT, "Setting", *labels])


def _cell(value: str, differs: bool) -> str:
    return f"{DIFFERENT} {value}" if differs else value


def _told(run: Run) -> dict[str, Any]:
    around = {
        "Steps to do": run.total_steps,
        "Command": run.command,
        "Commit": run.git_commit,
        "Host": run.host,
        "Devices": formatting.hardware(run),
        **{f"Policy: {name}": value for name, value in flattened(_rule(run)).items()},
        **{f"{name} version": version for name, version in run.versions.items()},
    }
    return flattened(run.config) | {name: value for name, value in around.items() if value not in (None, "")}


def _rule(run: Run) -> dict[str, Any]:
    """In full: what a run did not choose itself is as usual, which is no difference to one that chose the same."""
    return run_policy.policy_of(run.policy).to_dict() | {
        run_policy.DETECTION: asdict(run_policy.settings_of(run.policy))
    }


def _text(value: Any) -> str:
    """Whole numbers look alike however they were written: 3 and 3.0 do not differ."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
