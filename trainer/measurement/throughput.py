"""Speed and size of a run: tokens per second, model FLOPs utilisation, tokens per parameter.

Utilisation (MFU) is as in PaLM's appendix B: the FLOPs of the model for the tokens of one second, divided by the peak
of the devices. FLOPs are counted from the matrix products (`trainer.model.flops_per_token`) and as 6 N per token. `mfu`
counts the positions that a token attends to, half of the context under the causal mask; where the whole context, the
convention of PaLM, makes more than 1 % of difference, `mfu_full_attention` is reported, too.
"""

import functools
import re
import statistics
import timeit
from dataclasses import dataclass

import torch

from trainer.config import Recipe
from trainer.model import flops_per_token

CHINCHILLA_RATIO = 20.0
"""Tokens per parameter: about the optimum for a given amount of compute (Hoffmann et al. 2022)."""
MAX_DIFFERENCE = 0.01
"""Relative difference of the two counts of attention up to which one utilisation is enough."""

# The peak computing speed of a device: from its data sheet if the table lists it, else measured.

DATA_SHEETS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIE", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("A40", 149.7e12),
    ("A30", 165e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("MI300X", 1307.4e12),
    ("MI325X", 1307.4e12),
)
"""Words of a GPU's name, and its dense bfloat16 FLOP/s; the first row whose words all occur applies."""
NUM_REPEATS = 5
MATRIX_SIZE = {"cpu": 768}
DEFAULT_MATRIX_SIZE = 8192


@dataclass(frozen=True, slots=True)
class PeakFlops:
    flops_per_second: float
    source: str
    """Source of the figure, as a part of a sentence."""


def peak_flops(device: torch.device) -> PeakFlops:
    """Return the peak of one device, in the precision of the trainer: bfloat16 on a GPU, float32 on a CPU."""
    if device.type == "cpu":
        return _measured(device, torch.get_num_threads())
    return from_data_sheet(torch.cuda.get_device_name(device)) or _measured(device, 1)


def from_data_sheet(name: str) -> PeakFlops | None:
    """The peak of a GPU by its name; None for a GPU that is not in the table, and for a slice of one (MIG)."""
    words = set(re.findall(r"[A-Z0-9]+", name.upper()))
    for row, flops_per_second in DATA_SHEETS:
        if words.issuperset(row.split()) and "MIG" not in words:
            return PeakFlops(flops_per_second, "dense bfloat16, data sheet")
    return None


@functools.cache
def _measured(device: torch.device, num_threads: int) -> PeakFlops:
    """The fastest of a few matrix products, measured once per process: less than a data sheet would claim."""
    kind, dtype = ("float32", torch.float32) if device.type == "cpu" else ("bfloat16", torch.bfloat16)
    size = MATRIX_SIZE.get(device.type, DEFAULT_MATRIX_SIZE)
    factor = torch.ones(size, size, dtype=dtype, device=device)
    # Reading a number waits for the device.
    shortest = min(timeit.repeat(lambda: (factor @ factor)[0, 0].item(), number=1, repeat=NUM_REPEATS))
    return PeakFlops(2 * size**3 / shortest, f"measured, {kind} matrix product on {num_threads} thread(s)")


# A run.


class Throughput:
    def __init__(self, recipe: Recipe, *, num_parameters: int, peak: PeakFlops, num_devices: int = 1) -> None:
        self.recipe = recipe
        self.num_parameters = num_parameters
        self.peak = peak
        self.num_devices = num_devices
        self.flops_per_token = flops_per_token(recipe.model)
        self.full_attention_flops_per_token = flops_per_token(recipe.model, full_attention=True)
        self.tokens = recipe.steps * recipe.tokens_per_step
        """Tokens of the whole run."""
        self._since: tuple[int, float] | None = None
        self._rates: list[float] = []

    def facts(self) -> dict[str, object]:
        """Everything that is known before the first step, for the run's configuration."""
        return {
            "num_parameters": self.num_parameters,
            "flops_per_token": self.flops_per_token,
            "flops_per_token_full_attention": self.full_attention_flops_per_token,
            "flops_per_token_6n": 6 * self.num_parameters,
            "tokens_per_parameter": self.tokens / self.num_parameters,
            "peak_flops_per_second": self.peak.flops_per_second,
            "peak_flops_source": self.peak.source,
        }

    def after(self, step: int, now: float) -> dict[str, float]:
        """The rates since they were last returned, every `log_every` steps and at the last step; otherwise empty.

        All work of the loop counts: evaluation, probes, checkpoints. `now` is in seconds of any monotonic clock.
        """
        if self._since is None or step <= self._since[0]:  # the first step warms up; a rollback went back
            self._since = step, now
            return {}
        if (step + 1) % self.recipe.log_every and step + 1 != self.recipe.steps:
            return {}
        num_steps, seconds = step - self._since[0], now - self._since[1]
        self._since = step, now
        self._rates.append(num_steps * self.recipe.tokens_per_step / max(seconds, 1e-9))
        return self._utilisation(self._rates[-1])

    def median(self) -> dict[str, float]:
        """Return the metrics for the median rate of the run; empty without any rate."""
        return self._utilisation(statistics.median(self._rates)) if self._rates else {}

    def _utilisation(self, rate: float) -> dict[str, float]:
        peak = self.peak.flops_per_second * self.num_devices
        utilisation = {
            "tokens_per_second": rate,
            "mfu": rate * self.flops_per_token / peak,
            "mfu_6nd": rate * 6 * self.num_parameters / peak,
        }
        if self.conventions_differ:
            utilisation["mfu_full_attention"] = rate * self.full_attention_flops_per_token / peak
        return utilisation

    @property
    def conventions_differ(self) -> bool:
        """True if FLOPs with full attention exceed those of the attended positions by more than 1 %."""
        return self.full_attention_flops_per_token > (1 + MAX_DIFFERENCE) * self.flops_per_token

    def summary(self) -> list[str]:
        """Sentences for the end of a run."""
        exact, usual = self.tokens * self.flops_per_token, 6 * self.tokens * self.num_parameters
        sentences = [
            f"{self.tokens / self.num_parameters:.3g} tokens per parameter (Chinchilla: about {CHINCHILLA_RATIO:g}); "
            f"{exact:.3g} FLOPs (6ND: {usual:.3g})"
        ]
        rates = self.median()
        if rates:
            full = f"; full attention: {rates['mfu_full_attention']:.1%}" if self.conventions_differ else ""
            sentences.insert(
                0,
                f"{rates['tokens_per_second']:,.0f} tokens per second; "
                f"MFU {rates['mfu']:.1%} (6ND: {rates['mfu_6nd']:.1%}{full}) of "
                f"{self.num_devices} x {self.peak.flops_per_second / 1e12:.3g} TFLOP/s ({self.peak.source})",
            )
        return sentences
