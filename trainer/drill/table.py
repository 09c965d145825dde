"""A drill as the person at the terminal sees it."""

import sys

from rich.console import Console
from rich.table import Table

from trainer.drill.drill import Drill

COLUMNS = ("step", "fault", "hurt", "detected after", "action", "steps lost", "batches skipped", "recurred", "got past")

WIDTH = 140  # characters, where there is no terminal to ask


def show_drill(drill: Drill, console: Console | None = None) -> None:
    """One row a fault, then the held-out loss of every arm against the clean run's."""
    console = console or Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(title=f"seed {drill.seed}: {drill.got_past} of {drill.hurt} faults that hurt were got past")
    for column in COLUMNS:
        table.add_column(column)
    for each in drill.verdicts:
        detected = "" if each.detected_after is None else str(each.detected_after)
        counts = (str(each.steps_lost), str(each.batches_skipped))
        flags = ("yes" if each.recurred else "", "yes" if each.got_past else "NO")
        table.add_row(str(each.step), each.fault, "yes" if each.hurt else "", detected, each.action, *counts, *flags)
    console.print(table)
    clean = drill.held_out["clean"]
    for arm, loss in drill.held_out.items():
        console.print(f"held-out loss, {arm}: {loss:.4f} nats per token ({100 * (loss / clean - 1):+.2f} %)")
