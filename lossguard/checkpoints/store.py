"""The interface of checkpoints, required and optional, and the times of saving and loading them."""

import time
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Protocol, TypeGuard

from lossguard.vocabulary.errors import CheckpointError
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import RestorableTier


class CheckpointStore(Protocol):
    """The methods that a guard requires of checkpoints; `lossguard.torch.Checkpoints` is one implementation.

    With several ranks, each method is called on all of them. If `save` or `load` raises on one rank, it must raise on
    all.

    If it has the methods `lock(*, wait: float)` and `unlock()`, a guard calls them before and after its loop: `lock`
    keeps other processes from writing the store, or raises ConfigurationError after `wait` seconds.
    """

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending. The checkpoint of step R is the state before step R."""

    def save(self, step: int, state: dict[str, Any], /) -> None:
        """Save, or begin to: `steps` lists the step only once it is durable."""

    def settle(self, wait: bool = False, /) -> bool:
        """Return True if a background save has ended since the last call; with `wait`, wait for it first.

        Raises the exception with which it failed.
        """

    def pin(self, steps: Sequence[int], /) -> None:
        """Keep the checkpoints of these steps, whatever their age, until another call names others."""

    def load(self, step: int, /) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step`; return the `state` it was saved with.

        Raises CheckpointError when there is none, and CheckpointMismatch when the restored state is not the saved one.

        With the limit `max_depth`, a guard also gives `not_before`, the oldest step to which it may go back: then raise
        CheckpointTooOld, before anything has changed, when none from that step on is intact.
        """

    def discard_after(self, step: int, /) -> None:
        """Remove the checkpoints of later steps from the run."""


class OptionalMethods(CheckpointStore, Protocol):
    """Methods that a store may have in addition: a guard looks for each one (`offers`), and does without it."""

    durable_tier: Tier
    """Tier of the durable checkpoints; without this attribute, the disk."""
    memory_every: int | None
    """Steps between two checkpoints in memory; None: none are kept."""
    doubt: Callable[[int], str | None]
    """Returns another reason against the state before a step. A guard sets it, and `save` asks it, in any thread."""

    def save_in_memory(self, step: int, state: dict[str, Any], /) -> None:
        """Save without the disk. `steps` lists the step from now on, and `load` restores it, in this process.

        A store with this method has `memory_every`, `memory_steps` and `durable_steps`, too.
        """

    def memory_steps(self) -> list[int]:
        """Return those of `steps` that `load` restores from memory."""

    def durable_steps(self) -> list[int]:
        """Return those of `steps` that another process could restore."""

    def is_uploading(self) -> bool:
        """Return True if `save` would wait for an earlier checkpoint's upload: a guard leaves out the one that is due.

        Called on all ranks, and rank 0's answer counts for all.
        """

    def stop_uploading(self) -> None:
        """Give up what is being uploaded, up to the next `save`: a rollback does not wait for it."""

    def hold(self, state: dict[str, Any], /) -> Any:
        """Return a copy in memory of what `save` would write, whatever it is worth: a guard comes back to it."""

    def take_back(self, held: Any, /) -> dict[str, Any]:
        """Restore such a copy, which stays as it is; return its `state`."""

    def take_uncertified(self) -> list[tuple[int, str]]:
        """Return step and reason of each save since the last call whose state is never restored. Comes with `doubt`."""

    def check(self, step: int, /) -> str | None:
        """Return why the checkpoint of `step` cannot be restored, such as "model.pt is missing"; None if it is whole.

        Called on rank 0 alone, in another thread than the loop's; only what is cheap is looked at, such as sizes.
        """

    def check_complete(self, positioned: Sequence[Any] = (), ordering: Sequence[Any] = ()) -> None:
        """Raise ConfigurationError, in a sentence, for an object of the training that the checkpoints leave out.

        `positioned`: parts of the data whose position the guard keeps; the checkpoints must not restore it too.
        `ordering`: samplers whose order depends on a state that the guard does not keep. Called on all ranks, before
        the first step of a loop of one's own.
        """

    def expected(self, every: int, until: int, /) -> tuple[int, int]:
        """Return how many checkpoints stay that are saved every `every` steps up to `until`, and about their bytes."""


def offers(checkpoints: CheckpointStore, method: str) -> TypeGuard[OptionalMethods]:
    """Return True if the store has this optional method or attribute."""
    return hasattr(checkpoints, method)


def memory_steps(checkpoints: CheckpointStore) -> list[int]:
    """Return the steps that the store restores from memory."""
    return checkpoints.memory_steps() if offers(checkpoints, "save_in_memory") else []


def durable_tier(checkpoints: CheckpointStore) -> Tier:
    """Return the tier of the checkpoints that another process could restore."""
    return Tier(checkpoints.durable_tier) if offers(checkpoints, "durable_tier") else Tier.DISK


def tier_of(checkpoints: CheckpointStore, step: int) -> Tier:
    """Return the tier from which the store would load `step`."""
    return Tier.MEMORY if step in memory_steps(checkpoints) else durable_tier(checkpoints)


# Times of saving and loading, by the tier that holds the checkpoints.


class CheckpointTimes:
    """Measures the checkpoints of a guard."""

    def __init__(self, checkpoints: CheckpointStore) -> None:
        self._checkpoints = checkpoints
        self._load_seconds: dict[Tier, float] = {}
        self._save_seconds: dict[Tier, float] = {}

    def saved(self, tier: Tier, began: float) -> None:
        """A save that began at `began`, by `time.perf_counter`, no longer holds the loop up."""
        self._save_seconds[tier] = time.perf_counter() - began

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

    def tiers(self, steps: Sequence[int]) -> list[RestorableTier]:
        """`steps`, which can be restored, by tier. A step that both hold counts as in memory: it is loaded from there.

        A store that does not say that it keeps some in memory, or at a URL, has them all on the disk.
        """
        in_memory = set(memory_steps(self._checkpoints))
        by_tier = {
            Tier.MEMORY: tuple(step for step in steps if step in in_memory),
            durable_tier(self._checkpoints): tuple(step for step in steps if step not in in_memory),
        }
        return [
            RestorableTier(
                tier=tier,
                steps=held,
                load_seconds=self._load_seconds.get(tier),
                save_seconds=self._save_seconds.get(tier),
            )
            for tier, held in by_tier.items()
            if held
        ]
