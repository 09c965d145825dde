"""A check of `lossguard doctor`, and the settings of the SDK that are set."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lossguard.run.settings import VARIABLES
from lossguard.vocabulary.secrets import mask_text


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, and may be not what was meant
    PROBLEM = "problem"  # it stands in the way


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its subject, its result, and how to mend it."""

    name: str
    state: State
    sentence: str
    mend: str = ""
    """Advice; empty where nothing is to be done."""

    def fields(self) -> dict[str, Any]:
        """Return the check as `lossguard doctor --json` prints it."""
        return {"check": self.name, "state": self.state.value, "sentence": self.sentence, "mend": self.mend or None}


def ok(name: str, sentence: str) -> Check:
    return Check(name, State.OK, sentence)


def warning(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.WARNING, sentence, mend)


def problem(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.PROBLEM, sentence, mend)


# Settings that are set, and by what.

NOT_SET = "not set"
SECRET = frozenset({"LOSSGUARD_TOKEN", "LOSSGUARD_ORDER_KEY"})


def set_variables(options: argparse.Namespace, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Name, value and origin of each; secrets are not shown."""
    return [_described(name, option, options, environment) for name, option in VARIABLES.items()]


def _described(name: str, option: str, options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    given = getattr(options, option, None) if option else None
    value = str(given or environment.get(name) or "")
    origin = f"--{option}" if given else "environment" if value else NOT_SET
    hidden = f"({len(value)} characters)" if value and name in SECRET else mask_text(value)
    return {"name": name, "value": hidden or "-", "from": origin}
