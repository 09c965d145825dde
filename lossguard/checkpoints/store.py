"""The interface of checkpoints: the methods that a guard requires, and those that a store may have in addition."""

from collections.abc import Sequence
from typing import Any, Protocol


class CheckpointStore(Protocol):
    """The methods that a guard requires of checkpoints; `lossguard.torch.Checkpoints` is one implementation.

    With several ranks, each method is called on all of them. If `save` or `load` raises on one rank, it must raise on
    all.

    A store may have more attributes and methods. A guard looks for each one, and does without it:

    * `lock(*, wait: float)`, `unlock()`: called before and after the loop. `lock` keeps other processes from writing
      the store, or raises ConfigurationError after `wait` seconds.
    * `durable_tier`: the tier of the durable checkpoints, "disk" (the default) or "remote".
    * `memory_every`: steps between two checkpoints in memory, or None; `save_in_memory(step, state)`: save without the
      disk, so that `steps` lists the step from now on, and `load` restores it in this process; `memory_steps()`: those
      of `steps` that `load` restores from memory; `durable_steps()`: those that another process could restore.
    * `is_uploading()`: True if `save` would wait for an earlier checkpoint's upload: a guard leaves out the one that is
      due. Called on all ranks, and rank 0's answer counts. `stop_uploading()`: give up what is being uploaded, up to
      the next `save`, because a rollback does not wait for it.
    * `hold(state)`: return a copy in memory of what `save` would write, whatever it is worth; `take_back(held)`:
      restore such a copy, which stays as it is, and return its `state`. `holds_states`: False if neither works.
    * `doubt(step) -> str | None`: a guard sets it, and `save` asks it, in any thread, for another reason against the
      state before a step. `take_uncertified()`: return step and reason of each save since the last call whose state is
      never restored.
    * `check(step)`: return why a checkpoint cannot be restored, such as "model.pt is missing"; None if it is whole. On
      rank 0 alone, in another thread than the loop's; only what is cheap is looked at, such as sizes.
    * `check_complete(positioned, ordering)`: raise ConfigurationError, in a sentence, for an object of the training
      that the checkpoints leave out. `positioned`: parts of the data whose position the guard keeps; the checkpoints
      must not restore it too. `ordering`: samplers whose order depends on a state that the guard does not keep. Called
      on all ranks, before the first step of a loop of one's own.
    * `expected(every, until)`: return how many checkpoints stay that are saved every `every` steps up to `until`, and
      about their bytes.
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
