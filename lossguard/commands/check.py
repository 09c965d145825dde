"""One thing that `lossguard doctor` looked at. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # it works, and may be not what was meant
    PROBLEM = "problem"  # it stands in the way


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and how to mend it."""

    name: str
    state: State
    sentence: str
    mend: str = ""
    """What to do; empty where nothing is to be done."""

    def fields(self) -> dict[str, Any]:
        """As `lossguard doctor --json` prints it."""
        return {"check": self.name, "state": self.state.value, "sentence": self.sentence, "mend": self.mend or None}


def ok(name: str, sentence: str) -> Check:
    return Check(name, State.OK, sentence)


def warning(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.WARNING, sentence, mend)


def problem(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.PROBLEM, sentence, mend)
