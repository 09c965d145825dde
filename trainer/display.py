"""Progress in the terminal: a live line, or plain lines if standard output is not a terminal. Tables of results.

The guard's messages about resumes and rollbacks appear between the lines.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import lossguard
from lossguard import Estimate
from trainer.config import Recipe
from trainer.measurement.throughput import Throughput

TABLE_WIDTH = 150
"""Characters of a line in which a table is shown where there is no terminal."""


class Display:
    """A context around the loop; call `show` after every step."""

    def __init__(
        self,
        recipe: Recipe,
        run: lossguard.Run,
        guard: lossguard.Guard,
        *,
        throughput: Throughput,
        console: Console,
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.guard = guard
        self.throughput = throughput
        self.console = console
        self._last_metrics: Mapping[str, float] = {}
        self._evaluated: Mapping[str, float] = {}  # metrics of the last step with a held-out loss
        guard.tell = self.say
        self._live = Progress(
            TextColumn("{task.fields[line]}"), BarColumn(), TimeRemainingColumn(), console=self.console, transient=True
        )
        self._task = self._live.add_task("", total=recipe.steps, line="starting")

    def __enter__(self) -> Self:
        millions = self.throughput.num_parameters / 1e6
        self.say(
            f"run {self.run.id}: {self.recipe.name}, {millions:.2f} M parameters, "
            f"{self.recipe.steps} steps of {self.recipe.tokens_per_step} tokens"
        )
        if self.run.directory is not None:
            self.say(f"recorded in {self.run.directory}")
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
        is_stopped = self.guard.interrupted and self.guard.step < self.recipe.steps  # the guard says how to resume
        if kind is None and not is_stopped:
            for sentence in self._summary():
                self.say(sentence)

    def say(self, sentence: str) -> None:
        self.console.print(sentence, markup=False)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Display a finished step."""
        total = self.recipe.steps
        line = (
            f"step {step:>{len(str(total))}}/{total}  loss {metrics['loss']:.3f}  "
            f"grad norm {metrics['grad_norm']:.2f}  log Z {metrics['log_z']:.2f}  lr {metrics['lr']:.2e}  "
            f"{metrics['step_seconds']:.3f} s/step"
        )
        if self.console.is_terminal:
            self._live.update(self._task, completed=step + 1, line=line)
        elif step % self.recipe.log_every == 0 or step + 1 == self.recipe.steps:
            self.say(line)
        self._evaluated = metrics if "held_out_loss" in metrics else self._evaluated
        self._last_metrics = metrics

    def _summary(self) -> list[str]:
        if not self._last_metrics:
            return [f"nothing to do: {self.guard.step} of {self.recipe.steps} steps are done"]
        loss = self._last_metrics["loss"]
        summary = f"finished {self.guard.step} steps: loss {loss:.3f} nats per token ({loss / math.log(2):.3f} bits)"
        if evaluated := self._evaluated:
            error = f" +- {evaluated['held_out_loss_se']:.3f}" if "held_out_loss_se" in evaluated else ""
            bits = "bits per byte need data.bytes_per_token, the average number of bytes per token"
            if "held_out_bits_per_byte" in evaluated:
                bits = f"{evaluated['held_out_bits_per_byte']:.3f} bits per byte"
            summary += f", held-out loss {evaluated['held_out_loss']:.3f}{error} ({bits})"
        return [summary, *self.throughput.summary()]


def wide_console() -> Console:
    """Standard output, wide enough for tables where it is no terminal."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else TABLE_WIDTH)


def print_table(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def grouped(results: Iterable[Any], field: str) -> dict[Any, list[Any]]:
    """Value of a field -> the results that have it, both in order."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for each in results:
        groups[getattr(each, field)].append(each)
    return groups


def means(results: Sequence[Any], *fields: str) -> list[str]:
    """Return the mean of each field over results of several seeds, with its standard error."""
    return [str(Estimate.of(getattr(each, field) for each in results)) for field in fields]
