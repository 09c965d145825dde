"""How long saving and loading checkpoints takes, by the tier that holds them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lossguard.checkpoint_store import CheckpointStore, KeepsInMemory, durable_tier
from lossguard.states import Tier


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorableTier:
    """The restorable steps of one tier. A time is None until this process has measured it: nothing is estimated."""

    tier: Tier
    steps: tuple[int, ...]
    load_seconds: float | None = None
    """How long the last load took, its verification included."""
    save_seconds: float | None = field(default=None, compare=False)
    """How long the last save held the loop up. It differs with each save, so it alone is no news."""

    def to_wire(self) -> dict[str, Any]:
        """As in a spool and in a report; a time that is not measured is left out."""
        times = {"load_seconds": self.load_seconds, "save_seconds": self.save_seconds}
        known = {name: round(seconds, 6) for name, seconds in times.items() if seconds is not None}
        return {"tier": self.tier, "steps": list(self.steps), **known}


class CheckpointTimes:
    """Measures the checkpoints of a guard."""

    def __init__(self, checkpoints: CheckpointStore) -> None:
        self._checkpoints = checkpoints
        self._load_seconds: dict[Tier, float] = {}
        self._save_seconds: dict[Tier, float] = {}

    def saved(self, tier: Tier, began: float) -> None:
        """A save that began at `began`, by `time.perf_counter`, no longer holds the loop up."""
        self._save_seconds[tier] = time.perf_counter() - began

    def load(self, step: int) -> dict[str, Any]:
        """The same as `CheckpointStore.load`. The time counts unless an older checkpoint took the place of a damaged
        one."""
        tier = Tier.MEMORY if step in self._memory_steps() else durable_tier(self._checkpoints)
        began = time.perf_counter()
        state = self._checkpoints.load(step)
        if state.get("step") == step:
            self._load_seconds[tier] = time.perf_counter() - began
        return state

    def tiers(self, steps: Sequence[int]) -> list[RestorableTier]:
        """`steps`, which can be restored, by tier. A step that both hold counts as in memory: it is loaded from there.

        A store that does not say that it keeps some in memory, or at a URL, has them all on the disk.
        """
        in_memory = self._memory_steps()
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

    def _memory_steps(self) -> set[int]:
        return set(self._checkpoints.memory_steps()) if isinstance(self._checkpoints, KeepsInMemory) else set()
