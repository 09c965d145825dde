"""The signals that are judged, and what is peculiar to each."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    log: bool = False
    """Judge the logarithm (a norm's noise is multiplicative)."""
    two_sided: bool = False
    """A collapse counts too."""
    drifts: bool = False
    """A slow rise is a divergence."""
    floor: float = 1e-9
    """The least noise, in the judged unit."""
    caution: float = 1.0
    """Multiplies the thresholds: a signal that only foretells trouble must be surer than the loss itself."""
    gross: float = np.inf
    """A rise (in the judged unit) that is trouble even before anything is known of the noise."""
    gross_part: float = 0.0
    """The same as a part of the level; the larger of the two counts."""


SIGNALS = {
    # A rise by 1 nat and by 30% multiplies the perplexity by e at least: no warm-up makes such a step.
    "loss": Signal("loss", drifts=True, gross=1.0, gross_part=0.3),
    "grad_norm": Signal("grad_norm", log=True, floor=0.1, caution=2.0, gross=float(np.log(30.0))),
    "log_z": Signal("log_z", two_sided=True, caution=3.0),
}
