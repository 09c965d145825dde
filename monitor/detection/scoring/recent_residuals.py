"""Last observations that a signal's detector keeps."""

from dataclasses import dataclass, field
from math import nan

from monitor.detection.scoring.baseline import CHUNK
from monitor.detection.scoring.scan import LEAD


@dataclass(slots=True)
class RecentResiduals:
    """Last observations that the detector keeps beside its baseline."""

    z: list[float] = field(default_factory=lambda: [0.0] * LEAD)
    """Prewhitened residuals of this chunk, after the LEAD before it."""
    plain: list[float] = field(default_factory=lambda: [0.0] * LEAD)
    """Residuals without prewhitening; stored as empty where they are `z`."""
    last_z: float = 0.0
    """The last residual as it was before prewhitening, without limits."""
    last_alarm: int = -CHUNK
    """The observation of the last alarm."""
    values: list[float] = field(default_factory=lambda: [nan] * 4)
    """The last values, oldest first."""

    NUMBERS = ("last_z", "last_alarm")
    ARRAYS = ("z", "plain", "values")
