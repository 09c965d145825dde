"""Rows of a source into a recorded run: mapped names, their own times, and how the rows were made."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from lossguard.run.run import Run
from lossguard.sources.names import NameMap
from lossguard.sources.recognition import Preview, Recognition
from lossguard.sources.rows import Row, counts_samples
from lossguard.vocabulary.errors import logger
from lossguard.vocabulary.metrics import BY_NAME, COUNTS, DETECTOR_INPUTS
from lossguard.vocabulary.protocol import MAX_METRICS
from lossguard.vocabulary.source_facts import EVERY_STEP, SOURCE, Clock, SourceFacts

MAX_EQUAL_TOKENS = 4
"""Rows in a row with the same number of tokens, which a count from the start of the run cannot have."""


def recognised(rows: Iterable[Row], names: NameMap, known: SourceFacts = EVERY_STEP) -> SourceFacts:
    """Return how these rows were made: what is known, and what is recognised from them. For a run that is over, so that
    its first rows are judged by it too."""
    recognition, names = Recognition(known), NameMap(names.overrides)
    for row in rows:
        recognition.observe(row.step, names.mapped(row.values).get("loss"), row.values)
    return recognition.facts


class RunRecorder:
    """Writes rows into `run`. A step below the last one begins a new segment, as in `Run.log`.

    A second row of the last step, and one of an earlier step without anything that the detection reads, only comes
    late, as the result of an evaluation does: its values join the next row, because a recorded step is never changed.

    `known`: what the caller knows of the source, by its tracker or its configuration. The rest is recognised.
    `say`: gets, once, what the first rows are and what they are recorded as; then rows that are rare are warned of too.
    """

    def __init__(
        self,
        run: Run,
        names: NameMap | None = None,
        known: SourceFacts | None = None,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.run = run
        self.names = names or NameMap()
        self.preview = Preview(self.names)
        self._say, self._is_previewed = say, False
        self._recognition = Recognition(known or EVERY_STEP)
        self._last: Row | None = None  # that was recorded
        self._before: Row | None = None  # the last one before another process began to write
        self._late: dict[str, float] = {}
        self._late_step: int | None = None  # of the first row that came late before the process has a row of its own
        self._last_tokens, self._num_equal_tokens = -1.0, 0
        self._recorded: set[str] = set()  # names
        self._num_left_out = 0
        if self.facts != EVERY_STEP:
            self._declare(None)

    @property
    def facts(self) -> SourceFacts:
        """Facts about how the rows are made, as far as they are known."""
        return self._recognition.facts

    def know(self, facts: SourceFacts) -> None:
        """Something is known of the source only now, as from a configuration that came late."""
        if self._recognition.know(facts):
            self._declare(None)

    def write_row(self, row: Row, position: Any = None) -> None:
        """Record a row; `position`: where it stands in the source, for a reader that goes on later."""
        values = self.names.mapped(row.values)
        if not self.preview.is_complete:
            self.preview.add(row.step, row.values)
        if self.comes_late(row):
            self._late |= values
            self._late_step = row.step if self._late_step is None else self._late_step
            return
        if self._last is not None and row.step <= self._last.step:
            self._late, self._last_tokens = {}, -1.0  # the source goes back: what was late belongs to what it left
        recognition, loss = self._recognition, values.get("loss")
        if loss is not None and self.facts.clock is Clock.STEPS and counts_samples(self.names.chosen["loss"]):
            recognition.facts = replace(self.facts, clock=Clock.SAMPLES)
            self._declare(row.time)
        if recognition.observe(row.step, loss, row.values):
            self._declare(row.time)
        self._put(row, self._late | values, position)
        if self.preview.is_complete:
            self.say_preview()

    def say_preview(self) -> None:
        """Say what the first rows are, unless it was said or there is none."""
        if self._say is not None and not self._is_previewed and self.preview.num_rows:
            self._is_previewed = True
            self._say(self.preview.text().rstrip())

    def comes_late(self, row: Row) -> bool:
        """Return True for a row whose values join the next one: a second row of the last step, and one of an earlier
        step without anything that the detection reads, such as what a resumed process logs for step 0 at its start-up.
        A process whose steps rise is training again, whatever the names of its metrics are.
        """
        before = self._last or self._before
        if before is None or row.step > before.step:
            return False
        if row.step == before.step and self._last is not None:
            return True
        if self._last is None and self._late_step is not None and row.step > self._late_step:
            return False
        return not any(name in self.names.mapped(row.values) for name in DETECTOR_INPUTS)

    def begin_again(self, before: Row | None = None) -> None:
        """Another process writes the source from now on: its first row may be of any step, the last one too.

        `before`: the newest row of the run, where this recorder has written none.
        """
        self.flush()
        self._before = self._last or self._before or before
        self._last, self._late, self._late_step, self._last_tokens = None, {}, None, -1.0

    def flush(self, position: Any = None, *, final: bool = False) -> None:
        """Record the values that came late and that no row has followed: as one more step. `final`: nothing more comes,
        so that those of a process that has no row of its own are recorded too."""
        last = self._last or (self._before if final else None)
        if self._late and last is not None:
            self._put(replace(last, step=last.step + 1), self._late, position)

    def _put(self, row: Row, values: dict[str, float], position: Any) -> None:
        for name in COUNTS:
            count = values.get(name)
            if type(count) is float and count.is_integer():
                values[name] = int(count)
        if not self._recorded.issuperset(values):
            values = self._within_limit(values)
        if "tokens" in values:
            self._check_tokens(row, values)
        self.run.log_row(row.step, values, row.time, position)
        self._last, self._late = row, {}

    def _within_limit(self, values: dict[str, float]) -> dict[str, float]:
        """The values without new names beyond the limit: a collector would refuse all rows that hold one."""
        for name in values:
            if name in BY_NAME or len(self._recorded) < MAX_METRICS - len(BY_NAME):
                self._recorded.add(name)
        kept = {name: value for name, value in values.items() if name in self._recorded}
        if len(kept) < len(values) and not self._num_left_out:
            example = next(name for name in values if name not in kept)
            logger.warning(
                f"the source has more names than the {MAX_METRICS:,} of a run; those that came later are not recorded, "
                f"such as {example!r:.200}"
            )
        self._num_left_out += len(values) - len(kept)
        return kept

    def _check_tokens(self, row: Row, values: dict[str, float]) -> None:
        """Tokens are counted from the start of the run: what does not rise is another count, as of those of a batch."""
        count = values["tokens"]
        if not count <= self._last_tokens:
            if count == count:
                self._last_tokens, self._num_equal_tokens = count, 0
            return
        self._num_equal_tokens += 1
        if count == self._last_tokens and self._num_equal_tokens < MAX_EQUAL_TOKENS:
            return
        name = self.names.release("tokens")
        logger.warning(
            f"{name} is no count of all tokens so far: it went from {self._last_tokens:.0f} to {count:.0f} "
            f"at step {row.step}; it keeps its name"
        )
        values[self.names.target_of(name)] = values.pop("tokens")

    def _declare(self, at: float | None) -> None:
        self.preview.facts = self.facts
        self.run.log_event(SOURCE, self.facts.to_details(), at)
        if self._say is not None and self.facts.is_sparse:
            self.run.log_once.warn_once("sparse", self.facts.sparse_warning)
