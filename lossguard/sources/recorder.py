"""Rows of a source into a recorded run: mapped names, their own times, and how the rows were made."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lossguard.log_once import logger
from lossguard.metrics import COUNTS, DETECTOR_INPUTS
from lossguard.run import Run
from lossguard.sources.facts import EVERY_STEP, SOURCE, Clock, SourceFacts
from lossguard.sources.names import NameMap
from lossguard.sources.preview import Preview
from lossguard.sources.recognition import Recognition
from lossguard.sources.rows import Row, counts_samples


class RunRecorder:
    """Writes rows into `run`. A step below the last one begins a new segment, as in `Run.log`.

    A second row of the last step, and one of an earlier step without anything that the detection reads, only comes
    late, as the result of an evaluation does: its values join the next row, because a recorded step is never changed.

    `known`: what the caller knows of the source, by its tracker or its configuration. The rest is recognised.
    """

    def __init__(self, run: Run, names: NameMap | None = None, known: SourceFacts | None = None) -> None:
        self.run = run
        self.names = names or NameMap()
        self.preview = Preview(self.names)
        self._recognition = Recognition(known or EVERY_STEP)
        self._last: Row | None = None  # that was recorded
        self._late: dict[str, float] = {}
        self._last_tokens = -1.0
        if self.facts != EVERY_STEP:
            self._declare(None)

    @property
    def facts(self) -> SourceFacts:
        """How the rows are made, as far as it is known."""
        return self._recognition.facts

    def write(self, rows: Iterable[Row]) -> None:
        """Record the rows. Never raises into a training loop: the run warns once about what it cannot record."""
        for row in rows:
            self.write_row(row)

    def write_row(self, row: Row, position: Any = None) -> None:
        """Record a row; `position`: where it stands in the source, for a reader that goes on later."""
        values = self.names.mapped(row.values)
        if not self.preview.is_complete:
            self.preview.add(row.step, row.values)
        if self._last is not None and row.step <= self._last.step:
            if row.step == self._last.step or not any(name in values for name in DETECTOR_INPUTS):
                self._late |= values
                return
            self._late, self._last_tokens = {}, -1.0  # the source goes back: what was late belongs to what it left
        self._recognise(row, values)
        self._put(row, self._late | values, position)

    def flush(self) -> None:
        """Record the values that came late and that no row has followed: as one more step."""
        if self._late and self._last is not None:
            self._put(replace(self._last, step=self._last.step + 1), self._late, None)

    def _put(self, row: Row, values: dict[str, float], position: Any) -> None:
        for name in COUNTS:
            count = values.get(name)
            if type(count) is float and count.is_integer():
                values[name] = int(count)
        if "tokens" in values:
            self._check_tokens(row, values)
        self.run.log_row(row.step, values, row.time, position)
        self._last, self._late = row, {}

    def _check_tokens(self, row: Row, values: dict[str, float]) -> None:
        """Tokens are counted from the start of the run: what falls counts something else, such as those of a batch."""
        if not values["tokens"] < self._last_tokens:
            self._last_tokens = values["tokens"]
            return
        name = self.names.release("tokens")
        logger.warning(
            f"{name} is no count of all tokens so far: it fell from {self._last_tokens:.0f} to {values['tokens']:.0f} "
            f"at step {row.step}; from there on it is recorded under its own name"
        )
        values[self.names.target_of(name)] = values.pop("tokens")

    def _recognise(self, row: Row, values: dict[str, float]) -> None:
        recognition, loss = self._recognition, values.get("loss")
        if loss is not None and recognition.facts.clock is Clock.STEPS and counts_samples(self.names.chosen["loss"]):
            recognition.facts = replace(recognition.facts, clock=Clock.SAMPLES)
            self._declare(row.time)
        if recognition.observe(row.step, loss, row.values):
            self._declare(row.time)

    def _declare(self, at: float | None) -> None:
        self.preview.facts = self.facts
        self.run.log_event(SOURCE, self.facts.to_details(), at)
