"""The result of a drill as a table in the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trainer.drill.drill import DrillResult
from trainer.drill.fault_results import FaultResult

COLUMNS = ("step", "fault", "hurt", "detected after", "action", "steps lost", "batches skipped", "recurred", "got past")
WIDTH = 140  # characters, without a terminal


def show_drill(drill: DrillResult) -> None:
    """One row per fault, then the held-out loss of every strategy compared with the clean run's."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    title = f"seed {drill.seed}: got past {drill.got_past} of {drill.hurt} faults that hurt"
    console.print(_table(title, drill.fault_results))
    if drill.gate_results:
        hurt = [each for each in drill.gate_results if each.hurt]
        title = f"with the gate: got past {sum(each.got_past for each in hurt)} of {len(hurt)} faults that hurt"
        console.print(_table(title, drill.gate_results, with_updates=True))
    clean = drill.held_out["clean"]
    for strategy, loss in drill.held_out.items():
        sentence = f"held-out loss, {strategy}: {loss.mean:.4f} +- {loss.standard_error:.4f} nats per token"
        if loss is not clean:
            difference, error = loss.minus(clean)
            sentence += f", minus clean {difference:+.4f} +- {error:.4f} ({100 * (loss.mean / clean.mean - 1):+.2f} %)"
        console.print(sentence)


def _table(title: str, results: Sequence[FaultResult], *, with_updates: bool = False) -> Table:
    table = Table(title=title)
    for column in (*COLUMNS, "updates skipped") if with_updates else COLUMNS:
        table.add_column(column)
    for each in results:
        detected = "" if each.detected_after is None else str(each.detected_after)
        counts = (str(each.steps_lost), str(each.batches_skipped))
        flags = ("yes" if each.recurred else "", "yes" if each.got_past else "NO")
        updates = (str(each.updates_skipped),) if with_updates else ()
        hurt = "yes" if each.hurt else ""
        table.add_row(str(each.step), each.fault, hurt, detected, each.action, *counts, *flags, *updates)
    return table
