"""The exit codes of the commands, and the errors behind them as one sentence or one JSON object.

Scripts and agents rely on the codes; docs/terminal.md lists them.
"""

import json
import sys
from enum import IntEnum

from lossguard.cli.terminal import printable
from lossguard.run.interrupts import INTERRUPTED
from lossguard.vocabulary.errors import (
    CollectorError,
    ConfigurationError,
    Conflict,
    LossguardError,
    NotFound,
    Rejected,
    Unauthorised,
    Unreachable,
)


class ExitCode(IntEnum):
    """Exit codes of all commands; but `launch` ends as its command does, and `watch` on Ctrl-C as at its end."""

    DONE = 0
    LEFT = 1  # something is left, stands against it, or was not confirmed
    INVALID = 2  # the arguments or the configuration
    NOT_FOUND = 3  # no run, or several, of that name; no such incident, metric or route
    UNREACHABLE = 4  # no collector answers
    UNAUTHORISED = 5  # the collector refuses the token
    INTERRUPTED = INTERRUPTED  # Ctrl-C


class CommandError(LossguardError):
    """A command cannot be carried out: one sentence, and the exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.LEFT) -> None:
        super().__init__(message)
        self.code = code


ERRORS = (CommandError, ConfigurationError, CollectorError)
"""Errors that a command may raise: the command line prints their sentence."""
CODES: tuple[tuple[type[LossguardError], ExitCode], ...] = (
    (ConfigurationError, ExitCode.INVALID),
    (NotFound, ExitCode.NOT_FOUND),
    (Unreachable, ExitCode.UNREACHABLE),
    (Unauthorised, ExitCode.UNAUTHORISED),
    (Conflict, ExitCode.LEFT),
    (Rejected, ExitCode.INVALID),
)


def exit_code_of(problem: LossguardError) -> ExitCode:
    """The exit code of a command that ends with this error."""
    if isinstance(problem, CommandError):
        return problem.code
    return next((code for kind, code in CODES if isinstance(problem, kind)), ExitCode.LEFT)


def sentence_of(problem: LossguardError) -> str:
    """Return the sentence of a problem; of a refused request the collector's words, without status and place."""
    return problem.detail if isinstance(problem, Rejected) and problem.detail else str(problem)


def fail(problem: LossguardError, *, as_json: bool) -> int:
    """Print the error on standard error; returns the exit code."""
    code = exit_code_of(problem)
    print_error(sentence_of(problem), code, as_json=as_json)
    return code


def print_error(sentence: str, code: int, *, as_json: bool) -> None:
    """One sentence, or with `as_json` one JSON object, on standard error."""
    if as_json:
        print(json.dumps({"error": sentence, "exit_code": int(code)}), file=sys.stderr)
    else:
        print(f"lossguard: {printable(sentence)}", file=sys.stderr)
