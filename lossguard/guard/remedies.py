"""Remedies: changes of the training that an order may switch on with a rollback, and that end by themselves.

A loop registers them under names, such as a higher weight of the z-loss. A remedy is in effect at every step below its
end, and the history of the run holds the ends. So a resumed process and a run that goes back once more know what is in
effect at their step, and nothing of it depends on which process has switched it on.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lossguard.run.ranks import Ranks
from lossguard.run.run import Run
from lossguard.vocabulary.errors import LogOnce, RanksError
from lossguard.vocabulary.protocol import MAX_STEP, REMEDY, is_remedy

LASTS = 2000
"""Steps for which a remedy is in effect, unless it says otherwise."""


class Remedy(NamedTuple):
    """A remedy that a loop has registered."""

    apply: Callable[[], object]
    revert: Callable[[], object]
    lasts: int


class Remedies:
    """The remedies of a guard. With several ranks, every rank calls every method at the same place of its loop."""

    def __init__(self, run: Run, ranks: Ranks, log_once: LogOnce) -> None:
        self._run, self._ranks, self._log_once = run, ranks, log_once
        self.registered: dict[str, Remedy] = {}
        """The remedies that the loop has registered, by name."""
        self._applied: set[str] = set()
        self.lr_factor: Callable[[int], float] = lambda step: 1.0
        """Returns the factor of a step's learning rate; `lossguard.torch.learning_rate_remedy` sets it."""

    @property
    def ends(self) -> dict[str, int]:
        """By name, the step from which a remedy that was ordered is in effect no more."""
        return self._run.history.remedies

    def register(self, name: str, apply: Callable[[], object], revert: Callable[[], object], lasts: int) -> None:
        """See `Guard.remedy`."""
        if not is_remedy(name):
            raise ValueError(f"the name of a remedy has 1 to 64 characters of a-z, 0-9 and _, not {name!r:.100}")
        if name in self.registered:
            raise ValueError(f"the remedy {name!r} is registered twice; register each one once, before guard.steps")
        if type(lasts) is not int or not 1 <= lasts < MAX_STEP:
            raise ValueError(f"lasts={lasts!r:.100} of the remedy {name!r} must be a number of steps, at least 1")
        for what, function in (("apply", apply), ("revert", revert)):
            if not callable(function):
                raise ValueError(f"{what}={function!r:.100} of the remedy {name!r} must be a function")
        self.registered[name] = Remedy(apply, revert, lasts)
        self._run.can_apply(name)

    def start(self, names: Iterable[str], step: int) -> dict[str, Any]:
        """Switch these on at `step`, or on for longer. Returns what the spool records: their ends, and what failed.

        Raises RanksError alone: a remedy that cannot be applied on every rank is applied on none.
        """
        ends: dict[str, int] = {}
        problems = []
        for name in names:
            if problem := self._switch_on(name):
                problems.append(problem)
            else:
                ends[name] = max(self.ends.get(name, 0), step + self.registered[name].lasts)
        self.ends.update(ends)
        return ({"remedies": ends} if ends else {}) | ({"detail": "; ".join(problems)} if problems else {})

    def update(self, step: int) -> None:
        """Before `step`: revert what has ended, and apply what is in effect, in a resumed process or after a rewind.

        Raises RanksError alone.
        """
        self.revert_ended(step)
        for name, end in list(self.ends.items()):
            if step < end and name not in self._applied and self._switch_on(name):
                del self.ends[name]  # it would fail at every step

    def revert_ended(self, step: int) -> None:
        """Before `step`: revert what is in effect no more."""
        for name, end in self.ends.items():
            if step >= end and name in self._applied:
                self._switch_off(name)
                self._run.declare(REMEDY, name=name, state="ended")

    def present(self) -> tuple[frozenset[str], dict[str, int]]:
        """The names of those that are applied, and the ends: for `put_back`."""
        return frozenset(self._applied), dict(self.ends)

    def put_back(self, present: tuple[frozenset[str], dict[str, int]]) -> None:
        """Apply and revert what has changed since `present`. What a checkpoint holds must be restored after it."""
        applied, ends = present
        for name in self.registered:
            if name in applied:
                self._switch_on(name)
            else:
                self._switch_off(name)
        self.ends.clear()
        self.ends.update(ends)

    def _switch_on(self, name: str) -> str:
        """Apply it on all ranks, unless it is applied. Returns why that failed; empty if it did not."""
        try:
            self._ranks.run_on_all(self._apply_here, name)
        except RanksError:
            raise
        except Exception as problem:
            self._switch_off(name)
            why = f"the remedy {name!r} could not be applied: {problem}"
            self._log_once.warn_once(f"apply {name}", f"{why}; training continues without it")
            return why
        return ""

    def _apply_here(self, name: str) -> None:
        if name not in self.registered:
            raise LookupError("this loop has not registered it")
        if name not in self._applied:
            self.registered[name].apply()
            self._applied.add(name)

    def _switch_off(self, name: str) -> None:
        """Revert it on this rank, if it is applied. An error is reported, and it is not tried again."""
        if name not in self._applied:
            return
        self._applied.remove(name)
        try:
            self.registered[name].revert()
        except Exception as problem:  # the loop's own code must not end the run
            why = f"{type(problem).__name__}: {problem}"
            self._log_once.warn_once(f"revert {name}", f"the remedy {name!r} could not be reverted: {why}")


class ScaledRates:
    """Scales the rates of an optimizer for one step; a schedule may compute its next value from those of before."""

    def __init__(self) -> None:
        self._given: list[Any] = []  # numbers or 0-dim tensors; empty between two steps, and where nothing is scaled

    def scale(self, optimizer: Any, factor: float) -> None:
        """Call it before `optimizer.step()`."""
        if factor != 1.0:
            self._given = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor

    def undo(self, optimizer: Any) -> None:
        """Call it after `optimizer.step()`."""
        if self._given:
            for group, rate in zip(optimizer.param_groups, self._given, strict=True):
                group["lr"] = rate
            self._given = []
