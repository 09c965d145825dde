"""The verdict of a replay as a table in the terminal."""

import math
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.replay.incident import ReplayedIncident
from trainer.replay.verdict import Arm, ReplayVerdict

WIDTH = 110  # characters, without a terminal
COLUMNS = ("state", "batches", "worst", "expected", "tolerance", "reproduced")


def show_replay(incident: ReplayedIncident, verdict: ReplayVerdict) -> None:
    """The cause, one row per arm, how exact a repetition is, and excerpts of the culprit batches."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    console.print(Text(f"{incident}: {verdict.cause}", style="bold"))
    console.print(verdict.sentence, markup=False)
    table = Table(title=f"steps {verdict.first} to {verdict.last}, judged by {verdict.signal}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:5] else "left")
    for arm in verdict.arms:
        table.add_row(*_row(arm))
    if verdict.arms:
        console.print(table)
        exact = "bit for bit" if verdict.repeat_error == 0 else f"to {verdict.repeat_error:.2g} nats"
        console.print(f"normal steps repeat {exact}; {_divergence(verdict)}")
    for each in verdict.excerpts:
        console.print(f"batch {each.batch}, row {each.row}, loss {each.loss:.2f}:")
        for name, text in (("inputs", each.inputs), ("targets", each.targets)):
            console.print(f"  {name:<7} {text!r}", markup=False)


def _row(arm: Arm) -> tuple[str, ...]:
    worst = "not finite" if math.isnan(arm.worst) else f"{arm.worst:.3f}"
    reproduced = "yes" if arm.reproduced else "no"
    return f"step {arm.checkpoint}", arm.batches, worst, f"{arm.expected:.3f}", f"{arm.tolerance:.3f}", reproduced


def _divergence(verdict: ReplayVerdict) -> str:
    if verdict.departed_at is None:
        return "the same state with the same batches repeats the record to the end"
    return f"the same state with the same batches differs from the record from step {verdict.departed_at} on"
