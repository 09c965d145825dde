"""The order for which the next process of a run is started: a small file in the run's folder.

It is written before the process that trains is stopped, and replaced atomically. The line of the spool that opens the
new segment says that the order was executed; an order that the history has answered is executed no more. So a process
that is killed at any moment leaves an order that is executed once more from its beginning, or that was executed.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lossguard.spool.history import History
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.states import Refusal

STATE_FILE = "restart.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartState:
    """The order that waits for a restart, and the checkpoints whose training was rolled back."""

    order: Order | None = None
    discards: frozenset[int] = frozenset()
    """Steps with a checkpoint that the order discards."""
    discarded: frozenset[int] = frozenset()
    """Steps with a checkpoint that earlier orders have discarded, and that was not written anew."""
    oldest_step: int = 0
    """The limits of the run permit the order to go back no further than this step."""

    @property
    def newest_step(self) -> int | None:
        """No newer checkpoint may be loaded; None: any that is not discarded."""
        return None if self.order is None else self.order.rewind_to

    def may_load(self, step: int) -> bool:
        """Return True if the checkpoint of `step` belongs to the run as it goes on."""
        return step not in self.discarded and (self.newest_step is None or step <= self.newest_step)

    def newest(self, steps: Iterable[int]) -> int | None:
        """Return the newest of these steps whose checkpoint may be loaded; None if there is none."""
        return max(filter(self.may_load, steps), default=None)

    def refusal(self, steps: Iterable[int]) -> tuple[Refusal | None, str] | None:
        """Return why the order cannot be executed with the checkpoints of `steps`; None if it can."""
        newest = self.newest(steps)
        if newest is None:
            return None, f"there is no checkpoint at or before step {self.newest_step}"
        if newest >= self.oldest_step:
            return None
        why = f"max_depth permits no step before {self.oldest_step}, and the newest checkpoint is of step {newest}"
        return Refusal.LIMITS, why

    def ordered(self, order: Order, steps: Iterable[int], *, oldest_step: int = 0) -> "RestartState":
        """The state once `order`, which names a step to rewind to, has come, with checkpoints of `steps` there."""
        assert order.rewind_to is not None
        discards = frozenset(step for step in steps if step > order.rewind_to)
        return replace(self, order=order, discards=discards, oldest_step=oldest_step)

    def executed(self) -> "RestartState":
        """The state once the order was executed."""
        return RestartState(discarded=self.discarded | self.discards)

    def refused(self) -> "RestartState":
        """The state once the order was refused: nothing is discarded for it."""
        return RestartState(discarded=self.discarded)

    def written_anew(self, steps: Iterable[int]) -> "RestartState":
        """The state once the checkpoints of `steps` were written by the run as it goes on."""
        return replace(self, discarded=self.discarded - set(steps))

    def save(self, directory: Path) -> None:
        """Replace the file in the run's folder. Raises OSError; then the earlier state stays."""
        path = directory / STATE_FILE
        if self == RestartState():
            path.unlink(missing_ok=True)
            return
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(asdict(self), file, default=sorted)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def read(cls, directory: Path, history: History) -> "RestartState":
        """The state in the run's folder, without an order that the history has answered.

        A file that is missing or damaged counts as empty: the collector still has the order open, and sends it again.
        """
        try:
            body = json.loads((directory / STATE_FILE).read_bytes())
            order = None if body["order"] is None else Order.from_wire(body["order"])
            discards, discarded = (frozenset(filter(is_step, body[name])) for name in ("discards", "discarded"))
            oldest = body["oldest_step"]
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        if order is None or order.rewind_to is None:
            return cls(discarded=discarded)
        state = cls(order=order, discards=discards, discarded=discarded, oldest_step=oldest if is_step(oldest) else 0)
        return state.executed() if order.key in history.answered else state
