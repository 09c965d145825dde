"""Results of the trainer's lab (`python -m trainer lab .. --json`), by sweep. lab_results_file.py reads them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRun:
    """A run of a recipe. Losses in nats per token."""

    recipe: str
    seed: int
    held_out_loss: float
    held_out_loss_se: float
    """Over documents; NaN if it is not known."""
    bits_per_byte: float | None
    bits_per_character: float | None
    """Bits per character; None if the data is not text."""
    log_z: float

    @property
    def identity(self) -> Hashable:
        return self.recipe, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRun:
    """A run of one model size."""

    width: int
    seed: int
    parameters: int
    tokens: int
    held_out_loss: float

    @property
    def identity(self) -> Hashable:
        return self.width, self.tokens, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstableRun:
    """A run of the unstable recipe with a safeguard. What a jump is stands in trainer/lab/jumps.py."""

    safeguard: str
    seed: int
    final_loss: float
    num_jumps: int
    steps_lost: int
    largest_jump: float | None
    """The largest peak relative to the level before; None without a jump."""

    @property
    def identity(self) -> Hashable:
        return self.safeguard, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRun:
    """A model that was trained in one way on a source with known probabilities. Nats per token."""

    trained_with: str
    seed: int
    loss_floor: float
    held_out_loss: float
    true_prefixes: float
    """KL(source || model) after prefixes of the source."""
    own_prefixes: float
    """KL(source || model) after prefixes of the model."""
    bias: float
    true_inputs: float

    @property
    def identity(self) -> Hashable:
        return self.trained_with, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureRun:
    """The predictions of a model, sampled at one temperature."""

    temperature: float
    seed: int
    loss: float
    entropy: float
    hits: float
    """Mean probability that a sample is the true token."""

    @property
    def identity(self) -> Hashable:
        return self.temperature, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Absolute derivatives of losses by the logit of the true token, at one probability of it."""

    probability: float
    cross_entropy: float
    squared_error_one_wrong: float
    squared_error_spread: float

    @property
    def identity(self) -> Hashable:
        return self.probability


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRun:
    """The predictions of a model that was trained with label smoothing. Nats per token."""

    smoothing: float
    seed: int
    loss: float
    error: float
    """The expected calibration error."""
    surest_loss: float
    loss_floor: float

    @property
    def identity(self) -> Hashable:
        return self.smoothing, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class AbilityRun:
    """The loss of one kind of token at the beginning and at the end of a training, in nats per token."""

    kind: str
    seed: int
    first_loss: float
    last_loss: float

    @property
    def identity(self) -> Hashable:
        return self.kind, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class LabResults:
    """Results by sweep, in the order of the file."""

    key: str
    """Unique for this content; figures are cached by it."""
    switches: list[SwitchRun] = field(default_factory=list)
    scaling: list[ScalingRun] = field(default_factory=list)
    unstable: list[UnstableRun] = field(default_factory=list)
    exposure: list[ExposureRun] = field(default_factory=list)
    temperature: list[TemperatureRun] = field(default_factory=list)
    gradients: list[Gradients] = field(default_factory=list)
    calibration: list[CalibrationRun] = field(default_factory=list)
    abilities: list[AbilityRun] = field(default_factory=list)


Run = TypeVar("Run")


def groups(runs: Sequence[Run], name: str) -> dict[Any, list[Run]]:
    """The runs by the value of a field, in order of appearance."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(getattr(run, name), []).append(run)
    return found
