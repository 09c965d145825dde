"""Messages of the SDK to the person who trains: through `logging`, each only once."""

import logging

logger = logging.getLogger("lossguard")


class LogOnce:
    """Says a thing once per key; a training loop logs thousands of steps and needs no thousand warnings."""

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet`: say nothing, as on all ranks but one."""
        self._said: set[str] = set()
        self._quiet = quiet

    def say(self, key: str, message: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self.tell(message)

    def tell(self, message: str) -> None:
        """Say what is news each time."""
        if not self._quiet:
            logger.warning(message)

    def forget(self, key: str) -> bool:
        """Let `key` be said again. Returns whether it had been said."""
        said = key in self._said
        self._said.discard(key)
        return said
