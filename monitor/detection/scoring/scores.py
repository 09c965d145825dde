"""The scores that a signal's detector gives to rows."""

from dataclasses import dataclass

from monitor.detection.rows import Bools, Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """Columns over N rows; a row without an observation has z = evidence = single = drift = 0.

    `z`: residual in robust standard deviations, positive in the direction of an alarm; `evidence`, `single` (of the row
    alone), `drift` and `fall` (sudden): 1.0 is the alarm threshold; `expected` and `scale` in the signal's own unit, of
    non-finite rows too, nan where nothing is known; `low_step`: when the level was lowest; `rise_step`, `reference`:
    when the present slow rise began, and the level before it or else the usual level; `sure`: the evidence of an alarm
    in thresholds of an action; `non_finite`: reported, and nan, infinite or at least HUGE.
    """

    z: Floats
    evidence: Floats
    single: Floats
    drift: Floats
    expected: Floats
    scale: Floats
    low_step: Floats
    rise_step: Floats
    reference: Floats
    fall: Floats
    sure: Floats
    non_finite: Bools
