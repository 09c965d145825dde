"""What the configuration of a run says about how its rows are made."""

from collections.abc import Mapping
from typing import Any

from lossguard.sources.facts import EVERY_STEP, MAX_STRIDE, SourceFacts


def facts_of(config: Mapping[str, Any]) -> SourceFacts:
    """The facts in the arguments of the Hugging Face Trainer, which its loggers pass on; any other configuration has
    none. The Trainer logs the mean loss since its last log, without the steps whose loss is not finite by default."""
    if "logging_nan_inf_filter" not in config:
        return EVERY_STEP
    every = config.get("logging_steps")
    stride = 1
    is_by_step = "epoch" not in str(config.get("logging_strategy"))
    if is_by_step and isinstance(every, int | float) and 1 <= every <= MAX_STRIDE:
        stride = int(every)
    return SourceFacts(stride=stride, averaged=stride > 1, nan_filtered=config["logging_nan_inf_filter"] is True)
