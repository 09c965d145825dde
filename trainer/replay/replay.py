"""A replay of an incident: {the same, an earlier} checkpoint x {the same, other} batches, and what that points to.

    python -m trainer replay RUN/NUMBER [--out .lossguard] [--url http://127.0.0.1:8000] [--json]

The trouble is a row that is not finite, or that lies further from what was expected than clean steps do. The earlier
state with other batches is the run itself where it was clean: it is compared with its record, step by step, which says
how exact a repetition is here (bit for bit on the CPU that the run used).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

from lossguard.states import Cause
from trainer.config import recorded_recipe
from trainer.data.batches import open_batches
from trainer.errors import UserMistake
from trainer.faults import FaultyBatches, parse_fault
from trainer.replay.bisection import bisect
from trainer.replay.excerpts import Excerpt, excerpt
from trainer.replay.incident import Case
from trainer.replay.outcomes import NEAR, Outcomes, Reference, cause_of, departure, finite, off, reference
from trainer.replay.record import Record, Row
from trainer.replay.rerun import Rerun
from trainer.replay.verdict import Arm, Finding, numbered, sentence, too_small

TAIL = 10
"""Steps past the detection that are replayed too: a trouble may come a little later with other batches."""
DEPTH = 50
"""Steps that an earlier state lies before the same one, at least, where there is such a checkpoint."""
TRIES = 3
"""Checkpoints that are tried for either state."""
BEHIND = 50
"""Batches behind the replayed ones that are looked at for culprits where none were skipped."""
FEWEST = 8
"""Clean steps that a tolerance can be calibrated on."""


def replay(case: Case, record: Record, *, tell: Callable[[str], None]) -> Finding:
    """Run the arms, from the checkpoint at which the trouble began on, or an earlier one where that says too little;
    then look for the culprits. Raises UserMistake, Stopped, and LossguardError for a checkpoint that is not intact."""
    rerun = rerun_of(record)
    states = [step for step in sorted(record.checkpoints, reverse=True) if step <= case.onset]
    if not states:
        raise UserMistake(
            f"No checkpoint at or before step {case.onset} is left of that line of run {case.run_id}: the trouble "
            f"cannot be replayed. Kept are: {', '.join(map(str, sorted(record.checkpoints))) or 'none'}."
        )
    for state, older in zip(states[:TRIES], [*states[1:], None], strict=False):
        trial = Trial(case, record, rerun, state, tell)
        finding = trial.judge()
        if not trial.state_does_it or older is None or not trial.comes_from(older, finding):
            break
    if finding.cause in (Cause.DATA, Cause.DATA_X_STATE):
        tell("looking for the batches that do it")
        trial.find_culprits(finding)
    return finding


def rerun_of(record: Record) -> Rerun:
    config = record.config
    if (ranks := config.get("ranks", 1)) > 1:  # one process sums in another order, with one rank's random numbers
        raise UserMistake(f"The run was trained by {ranks} processes: only runs of one process can be replayed.")
    return Rerun(
        recorded_recipe(config),
        [parse_fault(text) for text in config.get("faults", ())],
        bool(config.get("faults_at_steps")),
        record.first_batches,
    )


class Trial:
    """The arms from one checkpoint on."""

    def __init__(self, case: Case, record: Record, rerun: Rerun, state: int, tell: Callable[[str], None]) -> None:
        self.case, self.record, self.rerun, self.state, self.tell = case, record, rerun, state, tell
        rows = record.rows
        self.last = max(step for step in range(state, case.detected + TAIL + 1) if step in rows)
        self.recorded = [rows[step] for step in range(state, self.last + 1)]
        self.same = [row.batch for row in self.recorded]
        self.arms: list[Arm] = []

    @property
    def state_does_it(self) -> bool:
        """Whether the state does it with other batches too."""
        return any(arm.reproduced for arm in self.arms if (arm.state, arm.batches) == ("same", "other"))

    def judge(self) -> Finding:
        """Calibrate, run the arms, decide."""
        onset, recorded_from = self.case.onset, min(self.record.rows)
        clean = finite(self.record.rows, range(onset - 1 - 2 * NEAR, onset), "loss")
        if len(clean) < FEWEST:
            raise UserMistake(
                f"Of the {2 * NEAR + 1} steps before step {onset} only {len(clean)} are recorded and finite: "
                f"a replay is judged by {FEWEST} clean steps before the trouble."
            )
        earlier, self.other, calibration, repeat = self._calibrate()
        since = max(recorded_from, min(onset - 2 * DEPTH, onset if earlier is None else earlier))
        self.near, excess = self._reference(since, repeat)
        if excess <= self.near.tolerance:
            return self._finding(Cause.UNDETERMINED, too_small(excess, self.near.tolerance), repeat)
        same_same = self._arm("same", "same", self.state, self.same)
        same_other = self._arm("same", "other", self.state, self.other)
        earlier_same = earlier_other = None
        if earlier is not None:
            earlier_same = self._arm("earlier", "same", earlier, self.same).reproduced
            earlier_other = self._arm("earlier", "other", earlier, self.other, calibration).reproduced
        outcomes = Outcomes(same_same.reproduced, same_other.reproduced, earlier_same, earlier_other)
        finding = self._finding(cause_of(outcomes), "", repeat)
        place = departure(self.recorded, same_same.rows, repeat)
        finding.departed_at = None if place is None else self.state + place
        finding.sentence = sentence(finding, earlier)
        return finding

    def comes_from(self, older: int, finding: Finding) -> bool:
        """Whether the run, trained again from an older checkpoint on, gets into the trouble: then look from there."""
        rows = self.record.rows
        wanted = [rows[step].batch for step in range(older, self.last + 1)]
        again = self._bad(older, self._train(older, wanted, self._is_bad))
        self.tell(f"the run trained again from step {older} on {'gets there too' if again else 'does not get there'}")
        if again:
            finding.sentence += f" It comes from before step {self.state}: the run trained again gets there too."
        elif finding.cause is Cause.STATE:
            finding.sentence += f" It was damaged between step {older} and step {self.state}."
        return again

    def _calibrate(self) -> tuple[int | None, list[int], list[Row], float]:
        """An earlier state whose own next batches go well; those batches, as many as are wanted, and what it did with
        them; and how exactly that repeats the record, in nats."""
        rows, length = self.record.rows, len(self.same)
        for earlier in self._earlier():
            clean = [rows[step] for step in range(earlier, min(earlier + length, self.state))]
            other = list(islice(cycle(row.batch for row in clean), length))
            replayed = self._train(earlier, other)
            repeat = max(off(was, now) for was, now in zip(clean, replayed, strict=False))
            if math.isfinite(repeat):
                return earlier, other, replayed, repeat
        before = [rows[step].batch for step in range(max(min(rows), self.state - length), self.state)]
        return None, list(islice(cycle(before or self.same), length)), [], 0.0

    def _earlier(self) -> Iterator[int]:
        """Checkpoints before the state, the best first: the newest that is DEPTH steps away, then earlier ones."""
        before = sorted((step for step in self.record.checkpoints if step < self.state), reverse=True)
        deep = [step for step in before if step <= self.state - DEPTH]
        return islice(iter(deep or before[-1:]), TRIES)

    def _reference(self, since: int, repeat: float) -> tuple[Reference, float]:
        """By the loss where that moved, else by the signal that did: (reference, the recorded trouble's excess)."""
        troubled = [(step, self.record.rows[step]) for step in range(self.case.onset, self.last + 1)]
        for signal in dict.fromkeys(("loss", self.case.signal)):
            near = reference(self.record.rows, first=since, onset=self.case.onset, signal=signal, repeat=repeat)
            excesses = [near.excess(step, row) for step, row in troubled]
            if max(excesses) > near.tolerance:
                return near.capped(excesses), max(excesses)
        return near, max(excesses)

    def _arm(self, state: str, batches: str, step: int, wanted: Sequence[int], rows: Sequence[Row] = ()) -> Arm:
        """Run it, unless its rows are there already."""
        rows = rows or self._train(step, wanted)
        place, excess = self.near.worst(step, rows)
        arm = Arm(
            state=state,
            batches=batches,
            checkpoint=step,
            reproduced=not excess <= self.near.tolerance,
            worst=rows[place].value(self.near.signal) if math.isfinite(excess) else math.nan,
            expected=self.near.expected(step + place),
            tolerance=self.near.tolerance,
            rows=rows,
        )
        does = "does it again" if arm.reproduced else "does not do it"
        self.tell(f"the state of step {step} with {batches} batches {does}")
        self.arms.append(arm)
        return arm

    def _train(self, step: int, wanted: Sequence[int], enough: Callable[[int, Row], bool] | None = None) -> list[Row]:
        return self.rerun.train(step, self.record.checkpoints[step], wanted, enough)

    def _finding(self, cause: Cause, words: str, repeat: float) -> Finding:
        return Finding(
            cause=cause,
            sentence=words,
            signal=self.near.signal,
            first=self.state,
            last=self.last,
            recorded=self.recorded,
            arms=self.arms,
            repeat=repeat,
        )

    def find_culprits(self, finding: Finding) -> None:
        """Bisect the batches that were replayed together with what of the skipped window lies behind them."""

        def troubled(part: Sequence[int]) -> bool:
            return self._bad(self.state, self._train(self.state, [*part, *self.other[:TAIL]], self._is_bad))

        behind = self.same[-1] + 1
        end = behind + BEHIND if self.record.skipped is None else self.record.skipped[1]
        window = [*self.same, *range(behind, end)]
        shown = next(place for place, row in enumerate(self.arms[0].rows) if self._is_bad(self.state + place, row))
        first, end = bisect(window, troubled, first_end=shown + 1)
        finding.culprits = [(first, end)]
        finding.sentence += f" Of batches {window[0]} to {window[-1]} it is {numbered(first, end)}."
        finding.excerpts = self._excerpts(first, end)

    def _is_bad(self, step: int, row: Row) -> bool:
        return not self.near.excess(step, row) <= self.near.tolerance

    def _bad(self, first: int, rows: Sequence[Row]) -> bool:
        """Whether it ended in the trouble."""
        return self._is_bad(first + len(rows) - 1, rows[-1])

    def _excerpts(self, first: int, end: int) -> list[Excerpt]:
        """Of the first, the middle and the last of them, as the state before the trouble finds them."""
        recipe = self.rerun.recipe
        source, _ = open_batches(recipe)
        batches = self.rerun.batches(FaultyBatches(source, self.rerun.faults, at_steps=self.rerun.faults_at_steps))
        model = self.rerun.model(self.state, self.record.checkpoints[self.state])
        shown = sorted({first, (first + end) // 2, end - 1})
        return [excerpt(model, batches[index], as_bytes=source.windows.bytewise) for index in shown]
