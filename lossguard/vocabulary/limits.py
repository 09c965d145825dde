"""Limits of what orders may do to a run. The trainer holds these limits, and no collector can raise them. Pure.

mode=approve, max_depth=2000, rollbacks_per_day=4        # as LOSSGUARD_LIMITS and the file `limits` have them
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import HAS_LIMITS, is_step
from lossguard.vocabulary.states import OrderKind, OrderMode, Refusal
from lossguard.vocabulary.wording import plural

Refused = tuple[Refusal, str]
"""Reason why an order is not carried out: what the collector makes of it, and a sentence for people."""
WHOLE_NUMBERS = ("max_depth", "max_skip", "rollbacks_per_day")
BY_STRICTNESS = (OrderMode.AUTO, OrderMode.APPROVE, OrderMode.OBSERVE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of what a trainer obeys, whatever its collector orders; an order beyond them is refused with the reason.

    None stands for no limit. Raises ConfigurationError that names the first invalid value.
    """

    mode: OrderMode = OrderMode.AUTO
    """`auto`: orders are carried out; `approve`: only those that a person has approved; `observe`: none."""
    max_depth: int | None = None
    """Steps of training that one rollback may discard."""
    max_skip: int | None = None
    """Batches that one rollback may skip."""
    rollbacks_per_day: int | None = None
    """Rollbacks within 24 hours, those by earlier processes of the run included."""
    not_after: float | None = None
    """Fraction of the run's steps, 0..1, after which nothing is rolled back: such as the end of the schedule."""
    allow_lr_scale: bool = True
    """True if an order may change the learning rate."""

    def __post_init__(self) -> None:
        if self.mode not in tuple(OrderMode):
            raise _bad("mode", self.mode, f"one of {', '.join(OrderMode)}")
        object.__setattr__(self, "mode", OrderMode(self.mode))
        for name in WHOLE_NUMBERS:
            value = getattr(self, name)
            if value is not None and not is_step(value):
                raise _bad(name, value, "a whole number from 0, below 2**53")
        fraction = self.not_after
        if fraction is not None and (type(fraction) not in (int, float) or not 0 <= fraction <= 1):
            raise _bad("not_after", fraction, "a fraction of the run, from 0 to 1")
        if type(self.allow_lr_scale) is not bool:
            raise _bad("allow_lr_scale", self.allow_lr_scale, "true or false")

    @classmethod
    def parse(cls, text: str, source: str = "limits") -> "Limits":
        """Limits as NAME=VALUE with commas or line ends between; a # begins a comment.

        Raises ConfigurationError that names `source`, and the name or value that is wrong.
        """
        values: dict[str, Any] = {}
        for part in re.split(r"[,\n]", re.sub("#.*", "", text)):
            name, equals, value = map(str.strip, part.partition("="))
            if not name and not equals:
                continue
            if name not in cls.__slots__ or not value:
                known = ", ".join(cls.__slots__)
                raise ConfigurationError(f"{source}: {part.strip()!r:.100} must be NAME=VALUE; names: {known}")
            if name in values:
                raise ConfigurationError(f"{source}: {name} is given twice")
            values[name] = _value(value)
        try:
            return cls(**values)
        except ConfigurationError as problem:
            raise ConfigurationError(f"{source}: {problem}") from None

    def to_text(self) -> str:
        """Return the text that `parse` reads, without what limits nothing; empty where nothing is limited."""
        nothing = Limits()
        differing = [each.name for each in fields(self) if getattr(self, each.name) != getattr(nothing, each.name)]
        return ",".join(f"{name}={str(getattr(self, name)).lower()}" for name in differing)

    def __and__(self, other: "Limits") -> "Limits":
        """The stricter of both, limit by limit."""
        return Limits(
            mode=max(self.mode, other.mode, key=BY_STRICTNESS.index),
            allow_lr_scale=self.allow_lr_scale and other.allow_lr_scale,
            **{name: _least(getattr(self, name), getattr(other, name)) for name in (*WHOLE_NUMBERS, "not_after")},
        )

    def refusal(self, order: Order, *, step: int, until: int | None, num_rollbacks: int) -> Refused | None:
        """Return why a run before `step` must not carry out `order`, or None.

        `until`: the number of steps that the run will have, if it is known; `num_rollbacks`: of the last 24 hours.
        """
        if order.kind is OrderKind.RELEASE:  # it only ends what an order has begun
            return None
        if self.mode is OrderMode.OBSERVE:
            return Refusal.OBSERVES, "the trainer carries out no orders (mode=observe)"
        if self.mode is OrderMode.APPROVE and not order.approved_by:
            return Refusal.APPROVAL, "no person has approved it (mode=approve)"
        if order.kind is not OrderKind.ROLLBACK:
            return None
        num_skipped = 0 if order.skip_from is None or order.skip_to is None else order.skip_to - order.skip_from
        problem = (
            (None if order.rewind_to is None else self.too_deep(step, order.rewind_to))
            or self.too_wide(num_skipped)
            or self._too_often(num_rollbacks)
            or self.bars_lr_scale(order.lr_scale)
            or self._too_late(step, until)
        )
        return None if problem is None else (Refusal.LIMITS, problem)

    def too_deep(self, step: int, rewind_to: int) -> str | None:
        """Return why a run before `step` must not go back to `rewind_to`, or None."""
        if self.max_depth is None or step - rewind_to <= self.max_depth:
            return None
        discarded = plural(step - rewind_to, "step")
        return f"it discards {discarded}, from {rewind_to} to {step}, and max_depth={self.max_depth}"

    def oldest_step(self, step: int) -> int:
        """The oldest step to which a run before `step` may go back."""
        return 0 if self.max_depth is None else max(0, step - self.max_depth)

    def too_wide(self, num_skipped: int) -> str | None:
        """Return why so many batches must not be skipped, or None."""
        if self.max_skip is None or num_skipped <= self.max_skip:
            return None
        return f"it skips {plural(num_skipped, 'batch', 'batches')}, and max_skip={self.max_skip}"

    def bars_lr_scale(self, lr_scale: float | None) -> str | None:
        """Return why the learning rate must not be multiplied by this factor, or None (also for the factor None)."""
        if lr_scale is None or self.allow_lr_scale:
            return None
        return f"it multiplies the learning rate by {lr_scale:g}, and allow_lr_scale=false"

    def _too_often(self, num_rollbacks: int) -> str | None:
        if self.rollbacks_per_day is None or num_rollbacks < self.rollbacks_per_day:
            return None
        return f"{plural(num_rollbacks, 'rollback')} within 24 hours, and rollbacks_per_day={self.rollbacks_per_day}"

    def _too_late(self, step: int, until: int | None) -> str | None:
        if self.not_after is None:
            return None
        if until is None:
            return f"not_after={self.not_after:g} cannot be checked: tell the run how many steps it has (total_steps)"
        if step <= self.not_after * until:
            return None
        return f"step {step} lies after {self.not_after:g} of the run's {until} steps (not_after={self.not_after:g})"


def limits_in(capabilities: Iterable[str]) -> Limits:
    """The limits among the capabilities of a run. Those of a later release that cannot be read do not count."""
    for each in capabilities:
        if each.startswith(HAS_LIMITS):
            with suppress(ConfigurationError):
                return Limits.parse(each.removeprefix(HAS_LIMITS))
    return Limits()


def _bad(name: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r:.100} must be {expected}")


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _least(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)
