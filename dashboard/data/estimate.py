"""A measurement that was repeated, as the pages show it. Pure."""

import math

from dashboard import formatting
from lossguard.vocabulary import wording

MAX_WITH_DECIMALS = 1e6
MAX_DECIMALS = 12


class RoundedEstimate(wording.Estimate):
    """A mean with its standard error."""

    __slots__ = ()

    def __str__(self) -> str:
        """Format with two significant digits of the error, as in "1.953 +- 0.012"."""
        if not math.isfinite(self.mean):
            return "not finite"
        if not 0.0 < self.standard_error < math.inf or abs(self.mean) >= MAX_WITH_DECIMALS:
            return formatting.number(self.mean)
        decimals = min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(self.standard_error))))
        return f"{self.mean:.{decimals}f} \N{PLUS-MINUS SIGN} {self.standard_error:.{decimals}f}"
