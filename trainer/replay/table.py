"""A replay as the person at the terminal sees it."""

import math
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.replay.incident import Case
from trainer.replay.verdict import Arm, Finding

WIDTH = 110  # characters, where there is no terminal to ask
COLUMNS = ("state", "batches", "worst", "expected", "tolerance", "the trouble")


def show_replay(case: Case, finding: Finding, console: Console | None = None) -> None:
    """The verdict, one row an arm, how exact a repetition is, and what stands in the culprits."""
    console = console or Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    console.print(Text(f"{case}: {finding.cause}", style="bold"))
    console.print(finding.sentence, markup=False)
    table = Table(title=f"steps {finding.first} to {finding.last}, judged by {finding.signal}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:5] else "left")
    for arm in finding.arms:
        table.add_row(*_row(arm))
    if finding.arms:
        console.print(table)
        exact = "bit for bit" if finding.repeat == 0 else f"to {finding.repeat:.2g} nats"
        console.print(f"clean steps repeat {exact}; {_departure(finding)}")
    for each in finding.excerpts:
        console.print(f"batch {each.batch}, row {each.row}, loss {each.loss:.2f}:")
        for name, text in (("inputs", each.inputs), ("targets", each.targets)):
            console.print(f"  {name:<7} {text!r}", markup=False)


def _row(arm: Arm) -> tuple[str, ...]:
    worst = "not finite" if math.isnan(arm.worst) else f"{arm.worst:.3f}"
    does = "again" if arm.reproduced else "no"
    return f"step {arm.checkpoint}", arm.batches, worst, f"{arm.expected:.3f}", f"{arm.tolerance:.3f}", does


def _departure(finding: Finding) -> str:
    if finding.departed_at is None:
        return "the same state with the same batches follows the record to the end"
    return f"the same state with the same batches leaves the record at step {finding.departed_at}"
