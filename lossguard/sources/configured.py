"""What the configuration of a run says about how its rows are made."""

from collections.abc import Mapping
from typing import Any

from lossguard.sources.facts import EVERY_STEP, MAX_STRIDE, SourceFacts


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
