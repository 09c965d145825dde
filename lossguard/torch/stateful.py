"""What can be saved in a checkpoint."""

from typing import Any, Protocol


class Stateful(Protocol):
    """Anything with a state: modules, optimizers, schedules, samplers, and what users write themselves.

    The state holds tensors and plain values alone, and `load_state_dict` brings all of it back: `state_dict` must then
    say again what was saved.
    """

    def state_dict(self) -> Any:
        """The whole state."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take a state over."""
