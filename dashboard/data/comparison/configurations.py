"""Configurations of several runs side by side, with differences marked, and the tokenizers that they name. Pure.

Loss and perplexity are per token, and a token of another tokenizer covers another amount of text. They are comparable
only between runs with the same tokenizer; bits per byte are comparable on the same text with any tokenizer.
"""

import json
from collections.abc import Mapping, Sequence
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
        compared_with = setting.values[baseline]
        cells = [value if value == compared_with else f"{DIFFERENT} {value}" for value in setting.values]
        rows.append([DIFFERENT if setting.differs else "", setting.name, *cells])
    return pd.DataFrame(rows, columns=[DIFFERENT, "Setting", *labels])


def _settings(run: Run) -> dict[str, Any]:
    # The policy has all defaults: a default that one run spells out is no difference.
    policy = run_policy.policy_of(run.policy).to_dict() | {
        run_policy.DETECTION: asdict(run_policy.settings_of(run.policy))
    }
    environment = {
        "Total steps": run.total_steps,
        "Command": run.command and mask_command_line(run.command),
        "Commit": run.git_commit,
        "Host": run.host,
        "Devices": formatting.hardware(run),
        **{f"Policy: {name}": value for name, value in flattened(policy).items()},
        **{f"{name} version": version for name, version in run.versions.items()},
    }
    return flattened(mask_json(run.config)) | {
        name: value for name, value in environment.items() if value not in (None, "")
    }


def setting_text(value: Any) -> str:
    """A setting as text; 3 and 3.0 are the same text."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


TOKENIZER_KEYS = ("tokenizer", "tokenizer_name", "tokenizer_path", "encoding")
SIZE_KEYS = ("vocab_size", "vocabulary_size", "n_vocab")
"""Last parts of the configuration keys that hold the tokenizer and the size of its vocabulary."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokenizer: str | None
    """Name of the tokenizer; None if the configuration names none."""
    size: int | None

    def __str__(self) -> str:
        name = "tokenizer not named" if self.tokenizer is None else self.tokenizer
        return name if self.size is None else f"{name}, {formatting.short_count(self.size)} tokens"


def vocabulary_of(config: Mapping[str, Any]) -> Vocabulary:
    flat = flattened(config)
    names = [value for value in _values_under(flat, TOKENIZER_KEYS) if isinstance(value, str) and value]
    sizes = [
        value for value in _values_under(flat, SIZE_KEYS) if isinstance(value, int) and not isinstance(value, bool)
    ]
    return Vocabulary(names[0] if names else None, sizes[0] if sizes else None)


def tokenizer_warning(runs: Mapping[str, Vocabulary]) -> str | None:
    """Return why perplexities of these runs (label -> vocabulary) may not be comparable; None if they are."""
    if len(runs) < 2:
        return None
    labels: dict[str, list[str]] = {}  # the runs that use it, by vocabulary
    for label, each in runs.items():
        labels.setdefault(formatting.escape_markdown(str(each)), []).append(formatting.escape_markdown(label))
    summary = "; ".join(f"{', '.join(names)}: {vocabulary}" for vocabulary, names in labels.items())
    if len({each.size for each in runs.values() if each.size is not None}) > 1 or (
        len({each.tokenizer for each in runs.values() if each.tokenizer is not None}) > 1
    ):
        return (
            "**Perplexities of different tokenizers are not comparable**, and neither are losses per token "
            f"({summary}). Bits per byte are comparable on the same text."
        )
    if any(each.tokenizer is None for each in runs.values()):
        return (
            f"**Perplexities of different tokenizers are not comparable**, and not every run names its tokenizer "
            f"({summary}). Record `tokenizer` and `vocab_size` in the configuration. "
            "Bits per byte are always comparable on the same text."
        )
    return None


def _values_under(flat: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """The values under keys that end in one of these names, outer sections first."""
    keys = sorted((key for key in flat if key.rpartition(".")[2] in names), key=lambda key: key.count("."))
    return [flat[key] for key in keys]
