"""The checkpoints of a guarded run: when they are saved and pinned, and the position that each holds."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from lossguard.checkpoints.store import CheckpointStore
from lossguard.guard.data.comparison import SampleComparison
from lossguard.guard.remedies import Remedies
from lossguard.run.ranks import Ranks
from lossguard.run.run import Run
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, ConfigurationError, LogOnce
from lossguard.vocabulary.metrics import CHECKPOINT_SECONDS
from lossguard.vocabulary.orders import Ledger, Skip
from lossguard.vocabulary.protocol import CHECKPOINT_UNCERTIFIED
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import RestorableTier
from lossguard.vocabulary.wording import never_restored, plural, size

ENDLESS = 1_000_000
"""Steps of a run that has no end, or a later one: its number of checkpoints hardly grows any more."""


def tier_of(checkpoints: CheckpointStore, step: int) -> Tier:
    """Return the tier from which the store would load `step`."""
    return Tier.MEMORY if step in _memory_steps(checkpoints) else _durable_tier(checkpoints)


def _memory_steps(checkpoints: CheckpointStore) -> list[int]:
    steps: list[int] = checkpoints.memory_steps() if hasattr(checkpoints, "memory_steps") else []
    return steps


def _durable_tier(checkpoints: CheckpointStore) -> Tier:
    """Return the tier of the checkpoints that another process could restore."""
    return Tier(getattr(checkpoints, "durable_tier", Tier.DISK))


class CheckpointSaver:
    """Saves a run into a CheckpointStore: a save that fails is reported, and the run continues without it."""

    def __init__(self, run: Run, checkpoints: CheckpointStore, ranks: Ranks, log_once: LogOnce, *, every: int) -> None:
        """`every`: steps between two durable checkpoints."""
        self.run, self.ranks = run, ranks
        self.place = getattr(checkpoints, "directory", "the store")
        """Folder or URL of the checkpoints, for people."""
        self._checkpoints, self._log_once, self._every = checkpoints, log_once, every
        self._is_saved_by_another = run.rank > 0 and ranks.size == 1  # rank 0 saves for ranks that cannot communicate
        store: Any = checkpoints
        self._memory = store if hasattr(store, "save_in_memory") and store.memory_every else None
        self._list_durable: Callable[[], list[int]] = getattr(self._memory, "durable_steps", checkpoints.steps)
        self._certifier = store if hasattr(store, "take_uncertified") else None
        self._load_seconds: dict[Tier, float] = {}
        self._save_seconds: dict[Tier, float] = {}
        if self._certifier is not None:
            self._certifier.doubt = self._doubt
        scalers = (each for each in getattr(checkpoints, "objects", {}).values() if hasattr(each, "get_scale"))
        if any(hasattr(each, "is_enabled") and each.is_enabled() for each in scalers):
            run.scales_loss()
        self._agreed_doubt: tuple[int, str | None] = (-1, None)  # step that is saved in memory, and what rank 0 says
        self._durable: list[int] = []  # as listed last
        self._saved_step: int | None = None  # the step whose durable checkpoint is the present state
        self._failed_after: int | None = None  # a durable save has failed: the newest one, or what was restored since
        self._uncertified_step: int | None = None  # of the newest one without a certificate, since the last restore
        self.pinned: list[int] = []
        """Checkpoints that an escalation of the last rollback may need,"""
        self.pinned_until = 0
        """up to this step."""

    def plan(self, until: int) -> str:
        """Say how often a run up to step `until` is saved, how many checkpoints stay, and about their size."""
        often = f"a checkpoint every {plural(self._every, 'step')}"
        if not hasattr(self._checkpoints, "expected"):
            return often
        num, num_bytes = self._checkpoints.expected(self._every, min(until, ENDLESS))
        return f"{often}, {num} kept (~{size(num_bytes)})"

    def durable_steps(self) -> list[int]:
        """Steps that another process could restore, too; while they cannot be listed, those of the last time."""
        try:
            self._durable = self._list_durable()
        except OSError as problem:  # a disk of the network that is away
            self._log_once.warn_once("steps", f"the checkpoints cannot be listed: {problem}")
        return self._durable

    def _steps(self) -> list[int]:
        return sorted({*self.durable_steps(), *_memory_steps(self._checkpoints)})

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        """Load as `CheckpointStore.load` does, and measure it unless an older checkpoint replaces a damaged one."""
        tier = tier_of(self._checkpoints, step)
        load: Any = self._checkpoints.load
        if not_before and "not_before" not in signature(load).parameters:
            raise CheckpointError("max_depth needs checkpoints whose load(step, not_before=..) knows the oldest step")
        began = time.perf_counter()
        state: dict[str, Any] = load(step, not_before=not_before) if not_before else load(step)
        if state.get("step") == step:
            self._load_seconds[tier] = time.perf_counter() - began
        return state

    def restored(self, step: int) -> None:
        """The present state is that of `step`."""
        self._saved_step, self._uncertified_step = step if step in self._list_durable() else None, None
        if self._failed_after is not None:
            self._failed_after = step

    def stepped(self) -> None:
        """The present state is that of no checkpoint."""
        self._saved_step = None

    def save_if_due(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Save before `step` if it is one of every so many: durably, or else in memory.

        A durable one would have to wait while an earlier one is being uploaded, so it is left out then.
        """
        is_due, store = step % self._every == 0, self._checkpoints
        is_uploading = False
        if is_due and hasattr(store, "is_uploading"):
            is_uploading = self.ranks.broadcast(store.is_uploading())
        if is_uploading:
            why = f"an earlier one has been uploaded for more than {self._every} steps"
            self._log_once.warn_once("uploading", f"no checkpoint of step {step}: {why}")
        if is_due and not is_uploading:
            self.save(step, state)
        elif (memory := self._memory) is not None and (is_due or step % memory.memory_every == 0):
            if self._certifier is not None:  # else the ranks would not hold the same steps
                self._agreed_doubt = (step, self.ranks.broadcast(self.run.doubt(step)))
            self._save(Tier.MEMORY, lambda: memory.save_in_memory(step, state()))

    def _doubt(self, step: int) -> str | None:
        """Return the reason against the state before `step`, which rank 0 alone knows; in memory it counts for all."""
        agreed_step, reason = self._agreed_doubt
        return reason if step == agreed_step else self.run.doubt(step)

    def save(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Save durably, or begin to, unless the present state is saved. `state()` is what the controller must know."""
        if self._saved_step != step:
            self._save(_durable_tier(self._checkpoints), lambda: self._save_durably(step, state))

    def _save_durably(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        self.settle(wait=True)
        if step >= self.pinned_until:
            self.pinned = self.pinned[-2:]  # a replay of the incident starts from the last, and from an earlier one
        self._checkpoints.pin(self.pinned)
        self._checkpoints.save(step, self.ranks.run_on_all(state))
        self._saved_step = step

    def _save(self, tier: Tier, save: Callable[[], None]) -> None:
        if self._is_saved_by_another:
            return
        began = time.perf_counter()
        try:
            save()
        except Exception as problem:  # a full disk, or too little memory, must not end a run that computes
            self._report_failed_save(problem, is_durable=tier is not Tier.MEMORY)
        else:
            self._save_seconds[tier] = time.perf_counter() - began
        self._report_uncertified()
        self.run.add_seconds(CHECKPOINT_SECONDS, time.perf_counter() - began)
        self.report_restorable()

    def settle(self, wait: bool = False) -> None:
        """Report how a background save ended: only a durable checkpoint can be restored."""
        try:
            if self._checkpoints.settle(wait):
                self.report_restorable()
                self._log_once.reset("save")
        except Exception as problem:
            self._report_failed_save(problem, is_durable=True)
        self._report_uncertified()

    def _report_uncertified(self) -> None:
        """Warn once, up to the next restore or good checkpoint, of a state that nothing will return to."""
        if self._certifier is None or not (taken := self._certifier.take_uncertified()):
            return
        earlier, self._uncertified_step = self._uncertified_step, taken[-1][0]
        steps = self._steps()
        if earlier is None or max(steps, default=-1) > earlier:
            step, reason = taken[0]
            self.run.log_event(CHECKPOINT_UNCERTIFIED, {"step": step, "reason": reason})
            self._log_once.warn(never_restored(step, reason, steps))

    def settle_for_rollback(self) -> None:
        """Settle without waiting for an upload: the state that the run is about to leave need not be durable."""
        if hasattr(self._checkpoints, "stop_uploading"):
            self._checkpoints.stop_uploading()
        self.settle(wait=True)

    def _report_failed_save(self, problem: Exception, *, is_durable: bool = False) -> None:
        self._saved_step = None
        if is_durable and self._failed_after is None:
            self._failed_after = max(self.durable_steps(), default=-1)
            self.run.cannot_save(str(problem))
        self._log_once.warn_once("save", f"a checkpoint could not be saved; the run continues without it: {problem}")

    def report_restorable(self) -> None:
        """Tell the collector which steps can be restored; rank 0 alone looks."""
        if self.run.rank > 0:
            return
        # A step that both tiers hold counts as in memory: it is loaded from there.
        steps, in_memory = self._steps(), set(_memory_steps(self._checkpoints))
        by_tier = {
            Tier.MEMORY: tuple(step for step in steps if step in in_memory),
            _durable_tier(self._checkpoints): tuple(step for step in steps if step not in in_memory),
        }
        load, save = self._load_seconds, self._save_seconds
        tiers = [
            RestorableTier(tier=tier, steps=held, load_seconds=load.get(tier), save_seconds=save.get(tier))
            for tier, held in by_tier.items()
            if held
        ]
        self.run.set_restorable(steps, tiers)
        if self._failed_after is not None and max(self._durable, default=-1) > self._failed_after:
            self._failed_after = None
            self.run.cannot_save("")

    def pin_all(self, until: int) -> None:
        """Keep all that there are now up to step `until`: the rollback may have been too short."""
        self.pinned = self.durable_steps()
        self.pinned_until = max(self.pinned_until, until)

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps; a disk that refuses it does not end the run."""
        try:
            self._checkpoints.discard_after(step)
        except (OSError, ConfigurationError) as problem:
            self._log_once.warn_once("discard", f"checkpoints after step {step} could not be deleted: {problem}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing is restored, saved or deleted while another process does so."""
        store: Any = None if self._is_saved_by_another else self._checkpoints
        if hasattr(store, "lock"):
            store.lock(wait=self.run.lock_wait)
        try:
            yield
        finally:
            if hasattr(store, "unlock"):
                store.unlock()


# The position of a run between two steps.


class Position:
    """The next step and its batch, the skips, and the factor of the learning rate that an order has set."""

    def __init__(
        self,
        saver: CheckpointSaver,
        remedies: Remedies,
        comparison: SampleComparison,
        *,
        skips: Iterable[Skip | tuple[int, int]],
        resume_from: int | None,
    ) -> None:
        """`comparison`: of the samples; checkpoints hold which skipped ones it looks for.

        `skips`: in addition to those that the run has skipped before. `resume_from`: the step from which a person has
        this process resume the run; its checkpoints hold it.
        """
        self._saver, self._remedies, self._comparison = saver, remedies, comparison
        self._run, self._ranks = run, ranks = saver.run, saver.ranks
        given = [skip if isinstance(skip, Skip) else Skip(*skip) for skip in skips]
        self.ledger = Ledger([*run.history.skips, *given])
        self.step = 0
        self.cursor = 0
        """Batch index from which the next step takes its batch."""
        self.lr_scale = 1.0
        self.skips_ended = False
        """True if the data was seen not to repeat itself: batches of it cannot be skipped."""
        self.is_discarded = False
        """True if a rollback has left the step that was restored: its checkpoint could not be deleted then."""
        self.resume_from = resume_from
        self.has_resumed_from_it = False
        """True if the checkpoint that was restored was saved by a process with the same `resume_from`."""
        self.data: Any = None
        """The training data, if its state belongs into checkpoints: its `state_dict` returns plain values."""
        self.gate: Any = None
        """The gate, if there is one: its state belongs into checkpoints too."""
        self._owner = ranks.broadcast(None if run.directory is None else run.id)  # of the checkpoints; None: unknown

    @property
    def batch(self) -> int:
        """Index of the batch that the next step uses."""
        return self.ledger.next_free(self.cursor)

    def advance(self) -> None:
        """A step was done, on `batch`."""
        self.step, self.cursor = self.step + 1, self.batch + 1
        self._saver.stepped()

    def state(self) -> dict[str, Any]:
        """Return the position as checkpoints hold it, in plain values."""
        skips = [[skip.skip_from, skip.skip_to, skip.reason] for skip in self.ledger.skips]
        state: dict[str, Any] = {"step": self.step, "cursor": self.cursor, "lr_scale": self.lr_scale, "ledger": skips}
        state |= {"run": self._owner, "remedies": dict(self._remedies.ends)}
        state |= {"rollbacks": len(self._run.history.rewound_to), "skips_ended": self.skips_ended}
        if self.resume_from is not None:
            state["resume_from"] = self.resume_from
        if self.data is not None:
            state["data"] = self.data.state_dict()
        if self.gate is not None:
            state["gate"] = self.gate.state_dict()
        state["comparison"] = self._comparison.state_dict()
        return state | {"pinned": self._saver.pinned, "pinned_until": self._saver.pinned_until}

    def restore(self, step: int, *, not_before: int = 0) -> None:
        """Restore the newest intact checkpoint at or before `step`, on all ranks; none before step `not_before`."""
        self._ranks.run_on_all(self._restore_here, step, not_before)

    def _restore_here(self, step: int, not_before: int) -> None:
        state = self._saver.load(step, not_before=not_before)
        self._check_owner(state["run"])
        if not 0 <= state["step"] <= step or state["cursor"] < state["step"]:  # each step has used one batch
            raise CheckpointMismatch(
                f"the checkpoint for step {step} contains step {state['step']}, batch {state['cursor']}: none can "
                "reach it"
            )
        self.step = state["step"]
        self.is_discarded = self._run.history.has_discarded(self.step, state["rollbacks"])
        self.has_resumed_from_it = self.resume_from is not None and state.get("resume_from") == self.resume_from
        self._saver.restored(self.step)
        self.enter(state)
        self.skips_ended |= state["skips_ended"]
        for name, end in state["remedies"].items():
            self._remedies.ends.setdefault(name, end)  # what the spool says is newer
        self._saver.pinned, self._saver.pinned_until = state["pinned"], state["pinned_until"]
        if "comparison" in state:
            self._comparison.load_state_dict(state["comparison"])
        for skip in state["ledger"]:
            self.ledger.add(Skip(*skip))

    def enter(self, state: dict[str, Any]) -> None:
        """Stand where the objects stood when a checkpoint was saved with this state: in the steps and in the data."""
        self.step, self.cursor = state["step"], state["cursor"]
        self.lr_scale = state["lr_scale"] if self._run.history.lr_scale is None else self._run.history.lr_scale
        if self.data is not None and "data" in state:
            self.data.load_state_dict(state["data"])
        if self.gate is not None:
            self.gate.load_state_dict(state.get("gate", {}))

    def _check_owner(self, owner: str | None) -> None:
        """A new run that is recorded may not continue from the checkpoints of another run."""
        if self._owner is None:
            self._owner = owner
        elif owner not in (None, self._owner) and not self._run.history.num_segments:
            held = f"{self._saver.place} holds checkpoints of run {owner!r}"
            raise CheckpointError(f"{held}: pass run_id={owner!r} to init, or use another folder")
