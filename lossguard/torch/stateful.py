"""Objects that can be saved in a checkpoint."""

from typing import Any, Protocol


class Stateful(Protocol):
    """Any object with a state: modules, optimizers, schedules, samplers, and the user's own classes.

    The state contains only tensors and plain values, and `load_state_dict` restores all of it: `state_dict` must return
    the saved state afterwards.
    """

    def state_dict(self) -> Any:
        """The whole state."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore a state."""
