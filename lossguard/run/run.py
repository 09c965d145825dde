"""The run as a training loop sees it. This class is the null object: every method exists and does nothing.

`lossguard.init` returns it for mode "off", and a `RecordingRun` otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lossguard.spool.folders import LOCK_WAIT
from lossguard.spool.history import History
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.states import Refusal, RunState, SegmentReason
from lossguard.vocabulary.wire import Answer, Question, RestorableTier

NO_STEPS = "no steps"
"""Key of the warning that a run has none, which `LogOnce` takes."""


class Run:
    """A run as `lossguard.init` returns it. This class records nothing."""

    def __init__(
        self, *, id: str, directory: Path | None = None, rank: int = 0, num_ranks: int = 1, lock_wait: float = LOCK_WAIT
    ) -> None:
        self.id = id
        self.directory = directory
        """The folder of this run's spools; None when nothing is recorded."""
        self.rank = rank
        self.num_ranks = num_ranks
        self.lock_wait = lock_wait
        """Seconds to wait for another process that still uses a folder of this run."""
        self.log_once = LogOnce(quiet=rank > 0)
        self.history = History()
        """The history of this run's earlier sessions."""
        self.batch_index: int | None = None
        """Absolute index of the current batch; a guard sets it, and every logged step then includes it."""
        self.skipped: Any = None
        """Updates that the optimizer did not take since the last logged step: a number or a 0-dim tensor. A gate sets
        it, and the next logged step then includes it, unless it is 0."""
        self.data_seconds: float | None = None
        """Seconds for which the loop waited for the current batch; a guard sets it, and the next step includes it."""
        self.aside = False
        """Set by a guard while it tries the arms of an order: what the loop reports then is no part of the run."""
        self.interrupted = False
        """Set by a guard after a signal: `finish()` then reports `interrupted`."""

    @property
    def newest_step(self) -> int | None:
        """The newest step that this process has logged in the present segment; None before the first one."""
        return None

    @property
    def planned_steps(self) -> int | None:
        """Number of steps that the run will have, if it is known."""
        return None

    @property
    def question(self) -> Question | None:
        """The collector's question before a person approves a rollback; never waits for the network."""
        return None

    def announce(self, tell: Callable[[str], None], plan: Callable[[], str] | None = None) -> None:
        """Tell at the start of a loop, in one line, which run this is and where it is reported. An adapter calls it.

        `plan()`: its checkpoints; None: the run is never rolled back.
        """

    def log(self, /, step: int, **metrics: Any) -> None:
        """Record the metrics of one optimizer step: Python or NumPy scalars, or 0-dim tensors on any device.

        Never raises, never waits for a device or the network. A step that is not greater than the last one begins a new
        segment. Non-finite values are recorded as they are; None means "not measured".
        """

    def add_seconds(self, metric: str, seconds: float) -> None:
        """Add to a duration that the next `log` reports, such as `evaluation_seconds` for an evaluation between steps.

        A duration of this name that the loop gives to `log` itself takes its place. Never raises.
        """

    def log_row(self, step: int, metrics: Mapping[str, Any], at: float | None = None, position: Any = None) -> None:
        """Record a step of an earlier time (`at`, unix seconds), and metrics of any name, like `log`.

        `position`: a JSON value for the reader of a source, kept in the line of the spool and not delivered.
        """

    def declare(self, /, kind: str, **details: Any) -> None:
        """Announce an intended change (learning_rate, batch_size, data_mix, ...): detectors start a new baseline."""

    def add_config(self, config: Mapping[str, Any], *, total_steps: int | None = None) -> None:
        """Add what is known only after `init`: entries of the configuration, and the steps that the run will have.

        An entry replaces an earlier one of the same name, and `total_steps` an earlier number that `init` was not
        given. Secrets are masked as in `init`. Never raises.
        """

    def log_event(self, kind: str, details: Mapping[str, Any], at: float | None = None) -> None:
        """Record an event of an earlier time (`at`, unix seconds), and details of any name, like `declare`."""

    def scales_loss(self) -> None:
        """Say that a GradScaler scales the loss, as in float16: it leaves out an update whose gradients overflow.

        From now on, a step with a finite loss whose `grad_norm` is not finite is recorded as `skipped`. Adapters call
        it, and a guard whose checkpoints hold the GradScaler.
        """

    def expect(self, /, *, next_report_in: float) -> None:
        """Announce a pause: the next step comes within `next_report_in` seconds (an evaluation, a save, a compilation).

        Until then, no alert is sent because the run has stalled. The next `log` ends the pause. It has no other effect.
        Before the first logged step of a process it announces nothing, and says so in a warning.
        """

    def probe(
        self,
        /,
        step: int,
        prompt: str,
        *,
        tokens: Sequence[str],
        log_probabilities: Sequence[float],
        target: str | None = None,
        target_log_probability: float | None = None,
        rest_count: int = 0,
        rest_log_probability: float | None = None,
        entropy: float | None = None,
    ) -> None:
        """Record which token the model predicts after `prompt` at the end of `step`; call it after that step's `log`.

        `tokens` are the texts of the likeliest tokens, in descending order, at most 256; `log_probabilities` are in
        nats. If these are not the whole vocabulary, `rest_count` is the number of other tokens, and
        `rest_log_probability` the logarithm of their summed probability; `entropy`, in nats, is then known only if it
        is given (it is that of the whole distribution at temperature 1). `lossguard.torch.next_token` computes all
        arguments from logits. Never raises, never waits for a device or the network. Detectors keep their baseline.
        """

    def finish(self, state: str | None = None, timeout: float = 30.0) -> None:
        """Deliver the spool within `timeout` seconds, and close the run as finished, interrupted or failed.

        Undelivered lines stay in the spool, and a warning explains how to deliver them later.
        """

    def doubt(self, step: int) -> str | None:
        """Why the state before `step` should not be returned to, as a clause: the loss or the gradient norm is in a
        spike, by the steps that were recorded. None: no reason is known."""
        return None

    def can_roll_back(self) -> None:
        """Tell the collector that this run executes orders. A guard calls it."""

    def cannot_roll_back(self, why: str) -> None:
        """Tell the collector that this run executes no orders any more, and why (a clause); refuse those that are open.

        A guard calls it when it has failed and the loop goes on; `can_roll_back` undoes it.
        """

    def cannot_save(self, why: str) -> None:
        """Tell the collector that checkpoints cannot be saved, and why (a clause); empty: they can again.

        A guard calls it. A rollback then loses more steps with every step.
        """

    def cannot_skip(self) -> None:
        """Tell the collector that orders of this run must not skip batches. A launcher calls it before any order."""

    def can_apply(self, remedy: str) -> None:
        """Tell the collector that this run's loop has registered the remedy of this name. A guard calls it."""

    def can_scale_lr(self) -> None:
        """Tell the collector that this run's loop multiplies its learning rate by what an order says."""

    def take_order(self) -> Order | None:
        """The next order that was not taken yet, from an inbox in memory: never waits for the network."""
        return None

    def open_segment(
        self, fork_step: int, reason: SegmentReason, order: Order | None = None, applied: dict[str, Any] | None = None
    ) -> None:
        """Begin a new segment whose first step is `fork_step`.

        With `order`, the same line of the spool records that it was applied, and how: `applied` holds rewound_to,
        skip_from, skip_to, and optionally lr_scale, remedies, reason, detail, compared (whether batches that are read
        from now on are compared with those that are skipped) and samples (those that later epochs leave out; they are
        not delivered). So the action and its report cannot differ. Without an order, it holds the `resume_from` of a
        guard, and rewound_to if that was carried out just now.
        """

    def accept(self, order: Order, detail: str = "") -> None:
        """Tell the collector that an order that opens no segment (hold, release) was executed."""

    def refuse(self, order: Order, detail: str, refusal: Refusal | None = None) -> None:
        """Tell the collector that `order` could not be executed, and why.

        `refusal`: it could have been, and the trainer would not.
        """

    def has_limits(self, limits: str) -> None:
        """Tell the collector what orders may do at most, as `Limits.to_text` writes it. A guard calls it."""

    def outdated(self, order: Order) -> str | None:
        """Return, as a clause, what has made `order` an order about another state since it was decided."""
        return None

    def revoked(self, order: Order) -> str | None:
        """Return why this process may no longer carry out `order`, as a clause. Asked again before it is recorded."""
        return None

    def give_back(self, order: Order) -> None:
        """`order` was taken and is not carried out: whoever holds the lease of the run gets it, maybe this process."""

    def set_restorable(self, steps: Sequence[int], tiers: Sequence[RestorableTier] = ()) -> None:
        """Tell the collector all steps that can be restored now, and where each of them is kept, if that is known."""

    def answers_questions(self) -> None:
        """Tell the collector that this run's trainer answers `question`. A guard calls it."""

    def answer_question(self, answer: Answer) -> None:
        """Tell the collector what was found."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.finish(RunState.INTERRUPTED)
        elif error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        else:
            self.finish(RunState.FAILED)


def watching(run_id: str, url: str | None, plan: str) -> str:
    """The line that says at the start that a run is watched, and by whom; `url`: of the collector, if there is one."""
    where = "recorded on disk only: no rollback" if url is None else f"reported to {url}"
    return f"watching run {run_id}, {where}; {plan}" if plan else f"watching run {run_id}, {where}"


def check_run(run: object) -> None:
    """Raise TypeError, in a sentence, for what is no run, such as the name of its project."""
    if not isinstance(run, Run):
        raise TypeError(f"run={run!r:.80} must be what lossguard.init(project=..) returns, not a {type(run).__name__}")
