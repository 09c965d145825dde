"""The interface of checkpoints: the methods that a guard requires, and those that a store may have in addition."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lossguard.vocabulary.states import Tier


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
    """Methods that a store may have in addition: a guard looks for each one, and does without it."""

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
