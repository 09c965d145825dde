"""What a guard needs of checkpoints."""

from collections.abc import Sequence
from typing import Any, Protocol


class CheckpointStore(Protocol):
    """What a guard needs of checkpoints; `lossguard.torch.Checkpoints` is one.

    With several ranks each method is called on all of them, and what `save` and `load` do on one and not on another
    must come to the same end: done on all, or raised on all.
    """

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending. Checkpoint R is the state before step R."""

    def save(self, step: int, state: dict[str, Any], /) -> None:
        """Save, or begin to: `steps` has the step only once it is durable."""

    def settle(self, wait: bool = False, /) -> bool:
        """Whether a save ended in the background since the last call (`wait` for it). Raises what it failed with."""

    def pin(self, steps: Sequence[int], /) -> None:
        """Keep these, whatever is deleted for its age, until other ones are named."""

    def load(self, step: int, /) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step`; return its `state`.

        Raises CheckpointError when there is none, and CheckpointMismatch when what was restored is not what was saved.
        """

    def discard_after(self, step: int, /) -> None:
        """From now on the checkpoints of later steps are no part of the run."""
