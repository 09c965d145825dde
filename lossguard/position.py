"""Where a run stands between two steps, as each of its checkpoints holds it."""

from collections.abc import Iterable
from typing import Any

from lossguard.checkpoint_saver import CheckpointSaver
from lossguard.checkpoint_store import CheckpointStore
from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.ledger import Ledger, Skip
from lossguard.ranks import Ranks
from lossguard.remedies import Remedies
from lossguard.run import Run


class Position:
    """The next step and its batch, the skips, and the factor of the learning rate that an order has set."""

    def __init__(
        self,
        run: Run,
        checkpoints: CheckpointStore,
        saver: CheckpointSaver,
        remedies: Remedies,
        ranks: Ranks,
        skips: Iterable[Skip | tuple[int, int]],
    ) -> None:
        """`skips`: in addition to those that the run has skipped before."""
        self._run, self._checkpoints, self._saver, self._remedies, self._ranks = (
            run,
            checkpoints,
            saver,
            remedies,
            ranks,
        )
        given = [skip if isinstance(skip, Skip) else Skip(*skip) for skip in skips]
        self.ledger = Ledger([*run.history.skips, *given])
        self.step = 0
        self.cursor = 0
        """Batch index from which the next step takes its batch."""
        self.lr_scale = 1.0
        self.is_discarded = False
        """Whether a rollback has left the step that was restored: its checkpoint could not be deleted then."""
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
        """What a checkpoint holds of it, in plain values."""
        skips = [[skip.skip_from, skip.skip_to, skip.reason] for skip in self.ledger.skips]
        state: dict[str, Any] = {"step": self.step, "cursor": self.cursor, "lr_scale": self.lr_scale, "ledger": skips}
        state |= {"run": self._owner, "remedies": dict(self._remedies.ends)}
        state["rollbacks"] = len(self._run.history.rewound_to)
        if self.data is not None:
            state["data"] = self.data.state_dict()
        if self.gate is not None:
            state["gate"] = self.gate.state_dict()
        return state | {"pinned": self._saver.pinned, "pinned_until": self._saver.pinned_until}

    def restore(self, step: int) -> None:
        """Restore the newest intact checkpoint at or before `step`, on all ranks."""
        self._ranks.run_on_all(self._restore_here, step)

    def _restore_here(self, step: int) -> None:
        state = self._saver.load(step)
        self._check_owner(state.get("run"))
        _check_position(state, step)
        self.step = state["step"]
        history = self._run.history
        self.is_discarded = history.has_discarded(self.step, state.get("rollbacks", len(history.rewound_to)))
        self._saver.restored(self.step)
        self.cursor = state["cursor"]
        self.lr_scale = state["lr_scale"] if self._run.history.lr_scale is None else self._run.history.lr_scale
        self._remedies.restore(state.get("remedies", {}))
        self._saver.pinned, self._saver.pinned_until = state["pinned"], state["pinned_until"]
        if self.data is not None and "data" in state:
            self.data.load_state_dict(state["data"])
        if self.gate is not None:
            self.gate.load_state_dict(state.get("gate", {}))
        for skip in state["ledger"]:
            self.ledger.add(Skip(*skip))

    def _check_owner(self, owner: str | None) -> None:
        """A new run that is recorded may not continue from the checkpoints of another run."""
        if self._owner is None:
            self._owner = owner
        elif owner not in (None, self._owner) and not self._run.history.num_segments:
            place = getattr(self._checkpoints, "directory", "the store")
            raise CheckpointError(
                f"{place} holds checkpoints of run {owner!r}, and this is the new run {self._run.id!r}: "
                f"pass run_id={owner!r} to lossguard.init to resume that run, or keep checkpoints in another folder"
            )


def _check_position(state: dict[str, Any], step: int) -> None:
    """The restored step is at or before the requested one, and each step before it has used one batch."""
    if not 0 <= state["step"] <= step or state["cursor"] < state["step"]:
        raise CheckpointMismatch(
            f"the checkpoint for step {step} contains step {state['step']} with batch {state['cursor']} next, "
            "which no run can have reached"
        )
