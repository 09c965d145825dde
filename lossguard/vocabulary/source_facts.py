"""Facts about the rows of a source: each step or every tenth, smoothed, averaged, without NaN, on another clock.

The trainer declares them as an event of kind SOURCE, and the collector's detection takes them into account. Pure.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

SOURCE = "source"
"""Kind of the event that says how the rows of a run were made. It announces no change: baselines stay."""
MAX_STRIDE = 1_000_000
MAX_SMOOTHING = 0.9999
SPARSE = 50
"""Steps between two rows from which on most spikes end before a row shows them."""


class Clock(StrEnum):
    """The unit that the steps of a source count."""

    STEPS = "steps"  # optimizer steps
    SAMPLES = "samples"
    EPOCHS = "epochs"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """The facts of a source. The defaults describe a loop that reports every step itself."""

    stride: int = 1
    """Steps from one row to the next."""
    averaged: bool = False
    """A row holds the mean since the row before it."""
    smoothing: float = 0.0
    """Weight of the past in an exponential moving average, per row; 0 where the loss is not smoothed."""
    nan_filtered: bool = False
    """NaN and infinite losses are left out, or logged as 0."""
    clock: Clock = Clock.STEPS

    def to_details(self) -> dict[str, Any]:
        """The details of the event: strict JSON."""
        return asdict(self) | {"clock": str(self.clock)}

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Self:
        """Undo `to_details`. A field that is missing or that this release cannot read has its default."""
        stride, smoothing = details.get("stride"), details.get("smoothing")
        read: dict[str, Any] = {name: details.get(name) is True for name in ("averaged", "nan_filtered")}
        if isinstance(stride, int | float) and 1 <= stride <= MAX_STRIDE and stride == int(stride):
            read["stride"] = int(stride)
        if isinstance(smoothing, int | float) and 0.0 <= smoothing <= MAX_SMOOTHING:
            read["smoothing"] = float(smoothing)
        if details.get("clock") in list(Clock):
            read["clock"] = Clock(details["clock"])
        return cls(**read)

    @classmethod
    def unread(cls, details: Mapping[str, Any]) -> list[str]:
        """Return details of an event that are no field, or have a value that it cannot have, as name=value."""
        read = cls.from_details(details).to_details()
        return [f"{name}={value!r:.80}" for name, value in details.items() if name not in read or read[name] != value]

    @property
    def uncertain_steps(self) -> int:
        """Steps before a row at which something that the row shows may have begun; 0 where every step is a row."""
        rows = 2 if self.averaged and self.stride > 1 else 1  # the mean may hide what began late in the row before
        return rows * self.stride - 1

    @property
    def is_sparse(self) -> bool:
        """True if most spikes end between two rows; a mean shows them damped."""
        return self.stride >= SPARSE and not self.averaged and self.clock is Clock.STEPS

    @property
    def sparse_warning(self) -> str:
        """A sentence for whoever can log more often."""
        return (
            f"the loss is logged every {_ordinal(self.stride)} step only: most spikes end between two rows and are not "
            "seen; log every step"
        )

    def describe(self) -> list[str]:
        """One sentence for each way in which the source differs from a loop that reports every step itself."""
        unit = {Clock.STEPS: "step", Clock.SAMPLES: "sample", Clock.EPOCHS: "epoch"}[self.clock]
        sentences = []
        if self.averaged and self.stride > 1:
            sentences.append(
                f"Each loss is the mean of {self.stride} {unit}s: an onset is known to within {2 * self.stride}, "
                "and a short spike is damped."
            )
        elif self.stride > 1:
            sentences.append(
                f"The loss is logged every {_ordinal(self.stride)} {unit}: an onset is known to within {self.stride} "
                f"{unit}s{', and most spikes end between two rows and are not seen' if self.is_sparse else ''}."
            )
        if self.smoothing:
            sentences.append(
                f"The loss is smoothed (EMA, {self.smoothing:.3g} of the past): charts show spikes damped and late; "
                "the detection undoes it."
            )
        if self.nan_filtered:
            sentences.append(
                "NaN losses are filtered before they are logged: a loss that is exactly 0 or missing counts as NaN."
            )
        if self.clock is not Clock.STEPS:
            sentences.append(f"The x axis counts {unit}s, not optimizer steps: no rollback is ordered.")
        return sentences


EVERY_STEP = SourceFacts()
"""A loop that reports every step itself."""


def says_source(kind: str, details: Mapping[str, Any]) -> bool:
    """Return True if an event says how rows are made. A loop may declare an event of its own of this kind, such as
    `run.declare("source", name="c4")`: that one is an event like any other."""
    return kind == SOURCE and not EVERY_STEP.to_details().keys().isdisjoint(details)


def _ordinal(number: int) -> str:
    """Return a number as in "every 10th step"."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return str(number) + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")


# Facts that the configuration of a run states.


def facts_of(config: Mapping[str, Any]) -> SourceFacts:
    """The facts in the arguments of the Hugging Face Trainer, which its loggers pass on: as they are, below another
    name, or as texts.

    The Trainer logs the mean loss since its last log (`Trainer._maybe_log_save_evaluate`). With
    `logging_nan_inf_filter`, its default, a NaN is replaced by the mean of the losses since then: 0 where there are
    none. Any other configuration has no facts.
    """
    nested = (each for each in config.values() if isinstance(each, Mapping))
    arguments = next((each for each in (config, *nested) if "logging_nan_inf_filter" in each), None)
    if arguments is None:
        return EVERY_STEP
    every = _number(arguments.get("logging_steps"))
    if "epoch" in str(arguments.get("logging_strategy")):
        every = 0.0
    stride = int(every) if 1 <= every <= MAX_STRIDE else 1
    is_filtered = str(arguments["logging_nan_inf_filter"]) == "True"
    return SourceFacts(stride=stride, averaged=every != 1, nan_filtered=is_filtered)


def _number(value: Any) -> float:
    """0 where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
