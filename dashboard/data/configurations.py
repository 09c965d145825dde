"""Configurations of several runs side by side, with differences marked. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from dashboard import formatting
from db.models import Run
from lossguard.vocabulary.run_search import flattened
from lossguard.vocabulary.secrets import mask_command_line, mask_json
from monitor.detection.interventions import run_policy

ABSENT = "-"
DIFFERENT = "\N{NOT EQUAL TO}"
"""Beside a setting that differs, and in cells that differ from the baseline: readable without colour."""
EVALUATION_SETTINGS = frozenset(
    ("data", "data.path", "data.held_out", "data.batch_size", "dataset", "evaluate_batches", "model.context", "seed")
)
"""Settings that may change the text of the held-out evaluation: common names, and those of earlier trainers."""
EVALUATION_SET = "evaluation_set"
"""The digest of the held-out windows, which the trainer records."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of several runs: its values as text, in the order of the runs."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def side_by_side(runs: Sequence[Run]) -> list[Setting]:
    """Every setting of any of these runs: configurations first, then command, host and versions."""
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    return [
        Setting(name, tuple(setting_text(each[name]) if name in each else ABSENT for each in settings))
        for name in names
    ]


def evaluation_differences(settings: Sequence[Setting]) -> list[str]:
    """The settings by which the runs may have been evaluated on different text; none if their digests are equal."""
    if shares_evaluation_set(settings):
        return []
    recorded = next((each for each in settings if each.name == EVALUATION_SET), None)
    if recorded is not None and ABSENT not in recorded.values:
        return [EVALUATION_SET]
    return [each.name for each in settings if each.differs and each.name in EVALUATION_SETTINGS | {EVALUATION_SET}]


def shares_evaluation_set(settings: Sequence[Setting]) -> bool:
    """True if all runs have recorded the same digest of their held-out windows."""
    return any(each.name == EVALUATION_SET and not each.differs for each in settings)


def table(settings: Sequence[Setting], labels: Sequence[str], baseline: int) -> pd.DataFrame:
    """One row per setting, one column per run; `baseline` is the index of the run that the others are compared with."""
    rows = []
    for setting in settings:
        cells = [_cell(value, value != setting.values[baseline]) for value in setting.values]
        rows.append([DIFFERENT if setting.differs else "", setting.name, *cells])
    return pd.DataFrame(rows, columns=[DIFFERENT, "Setting", *labels])


def _cell(value: str, differs: bool) -> str:
    return f"{DIFFERENT} {value}" if differs else value


def _settings(run: Run) -> dict[str, Any]:
    environment = {
        "Total steps": run.total_steps,
        "Command": run.command and mask_command_line(run.command),
        "Commit": run.git_commit,
        "Host": run.host,
        "Devices": formatting.hardware(run),
        **{f"Policy: {name}": value for name, value in flattened(_policy(run)).items()},
        **{f"{name} version": version for name, version in run.versions.items()},
    }
    return flattened(mask_json(run.config)) | {
        name: value for name, value in environment.items() if value not in (None, "")
    }


def _policy(run: Run) -> dict[str, Any]:
    """Return the policy with all defaults: a default that one run spells out is no difference."""
    return run_policy.policy_of(run.policy).to_dict() | {
        run_policy.DETECTION: asdict(run_policy.settings_of(run.policy))
    }


def setting_text(value: Any) -> str:
    """A setting as text; 3 and 3.0 are the same text."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
