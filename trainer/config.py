"""The settings of the reference trainer and of its data, from recipes and the command line."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trainer.conversion import build
from trainer.errors import UsageError, require, require_at_least, require_share

# The settings of the data: the section `data` of a recipe.

ROWS = ("packed", "documents", "paragraphs")


@dataclass(kw_only=True, slots=True, frozen=True)
class DataConfig:
    """The source of the tokens, and their order."""

    path: str = ""
    """A text file, a folder of text, a `.bin` shard or a folder of them, a Markov chain such as `markov:2,16`
    (trainer/data/markov.py); empty for the standard library's source."""
    batch_size: int = 16
    """Sequences per batch."""
    bytes_per_token: float = 0.0
    """Average bytes of text per token of `.bin` shards; 0 if unknown. In text files a token is a byte."""
    tokenizer: str = ""
    """`bpe:4096` for byte pairs learnt from the text; or the name of the `.bin` shards' tokenizer, which is recorded
    because only perplexities of one tokenizer compare."""
    separator: int | None = None
    """Token id between the documents of `.bin` shards, such as 50256 for GPT-2; default: unknown."""
    held_out: float = 0.02
    """Share of the documents that is not trained on; of fewer than 20 documents, the last part of the tokens."""
    rows: str = "packed"
    """Content of a sequence: `packed`, tokens across the ends of documents; `documents`, tokens of one document;
    `paragraphs`, of one paragraph of text (up to a blank line). Its rest is padding, which no loss counts."""
    max_windows: int = 0
    """Windows at the start of the training data that are trained on; 0 for all."""
    easy_first: bool = False
    """A curriculum: the windows of the run are sorted by their number of different tokens, fewest first."""
    curriculum_steps: int | None = None
    """Steps of the curriculum; default: the run's `steps`. Batches after them are in shuffled order."""

    def __post_init__(self) -> None:
        require_at_least("data.", self, 1, "batch_size")
        require_at_least("data.", self, 0, "bytes_per_token")
        enough = self.max_windows == 0 or self.max_windows >= self.batch_size
        require("data.max_windows", self.max_windows, enough, f"0, or data.batch_size = {self.batch_size} or more")
        require_share("data.", self, "held_out")
        require("data.rows", self.rows, self.rows in ROWS, f"one of {', '.join(ROWS)}")
        if self.separator is not None:
            require_at_least("data.", self, 0, "separator")
        if self.curriculum_steps is not None:
            require_at_least("data.", self, 1, "curriculum_steps")


# Recipes: the settings of a run, as TOML files and `--set section.field=value` overrides.
#
# A field is checked where it is declared; the error names it as the user writes it.

RECIPES = Path(__file__).parent / "recipes"


@dataclass(kw_only=True, slots=True, frozen=True)
class ModelConfig:
    """The shape of the GPT."""

    vocab_size: int = 256
    """Number of token ids; 256 for bytes, 50257 (or a rounder 50304) for GPT-2 shards."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Attention heads of a block; `width / heads` must be even (RoPE turns pairs)."""
    width: int = 128
    """Width of the residual stream, in channels."""
    context: int = 128
    """Positions of a sequence, in tokens."""
    qk_norm: bool = False
    """True if queries and keys are normalised before their product."""
    dropout: float = 0.0
    """Probability of dropping an attention weight or a channel of a block's output."""
    tied: bool = True
    """True if the output projection is the embedding table itself, or a matrix of its own."""
    causal: bool = True
    """True if a position attends only to itself and earlier ones; otherwise the targets leak into the inputs."""

    def __post_init__(self) -> None:
        require_at_least("model.", self, 1, "layers", "heads", "width", "context")
        require("model.vocab_size", self.vocab_size, 2 <= self.vocab_size <= 65536, "between 2 and 65536")
        paired = self.width % (2 * self.heads) == 0
        require("model.width", self.width, paired, f"a multiple of 2 * model.heads = {2 * self.heads}")
        require_share("model.", self, "dropout")


@dataclass(kw_only=True, slots=True, frozen=True)
class OptimizerConfig:
    """AdamW, its schedule, and its stabilisers."""

    lr: float = 1e-3
    """PeakFlops learning rate."""
    final_lr: float = 0.1
    """Learning rate at the end of the decay, as a fraction of the peak."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    decay_steps: int | None = None
    """Step at which the cosine decay ends; default: the run's `steps`."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    weight_decay: float = 0.1
    """Decay of the matrices, per unit of learning rate; the gains of norms do not decay."""
    clip_norm: float = 1.0
    """Global L2 norm to which gradients are clipped; 0 turns clipping off."""
    z_weight: float = 1e-4
    """Weight of the z-loss, log^2 Z."""

    def __post_init__(self) -> None:
        require("optimizer.lr", self.lr, 0.0 < self.lr < 10.0, "above 0 and below 10")
        require_share("optimizer.", self, "final_lr", below_one=False)
        require_share("optimizer.", self, "beta1", "beta2")
        require_at_least("optimizer.", self, 0, "warmup_steps", "weight_decay", "clip_norm", "z_weight")
        if self.decay_steps is not None:
            require_at_least("optimizer.", self, 1, "decay_steps")


@dataclass(kw_only=True, slots=True, frozen=True)
class ObjectiveConfig:
    """The loss that is minimised, and its inputs. The reported loss is always the cross-entropy of the true targets."""

    label_smoothing: float = 0.0
    """Share of the target's probability that is distributed over the vocabulary."""
    scheduled_sampling: float = 0.0
    """Probability that an input token is one that the model samples after the inputs before it, one position after
    the other, in as many passes as there are positions; 1 is training without teacher forcing."""
    parallel_scheduled_sampling: float = field(default=0.0, metadata={"formerly": "own_inputs"})
    """Probability that an input token is the model's likeliest after the true tokens, in one pass for all positions."""
    shift: bool = True
    """Whether the target of a position is the token after it; otherwise it is the token of the position itself."""
    squared_error: bool = False
    """True if the squared error of the probabilities is minimised instead of the cross-entropy."""

    def __post_init__(self) -> None:
        require_share("objective.", self, "label_smoothing")
        require_share("objective.", self, "scheduled_sampling", "parallel_scheduled_sampling", below_one=False)
        own, smoothing = self.scheduled_sampling, self.label_smoothing
        is_one_kind = not (own and self.parallel_scheduled_sampling)
        require("objective.scheduled_sampling", own, is_one_kind, "0 with objective.parallel_scheduled_sampling")
        is_compatible = not (self.squared_error and smoothing)
        require("objective.label_smoothing", smoothing, is_compatible, "0 with objective.squared_error")


@dataclass(kw_only=True, slots=True, frozen=True)
class CheckpointConfig:
    """The interval of saves, and the number of checkpoints that are kept."""

    every: int = 25
    """Steps between checkpoints."""
    keep: int = 20
    """Newest checkpoints that are kept; of the older ones, one per doubling of the age, and the first."""
    memory: int = 16
    """Newest states that are also kept in host memory; 0 for none."""
    memory_every: int = 5
    """Steps between two of them."""

    def __post_init__(self) -> None:
        require_at_least("checkpoint.", self, 1, "every", "keep", "memory_every")
        require_at_least("checkpoint.", self, 0, "memory")


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """One training run."""

    name: str = "custom"
    """Name of the run on the dashboard."""
    project: str = "trainer"
    """Project of the run."""
    steps: int = 600
    """Number of optimizer steps."""
    seed: int = 1
    """Seed of the weights, the data order and the injected faults."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ..; on a GPU the forward pass is in bfloat16."""
    parallel: str = "ddp"
    """Distribution of the model over several processes (torchrun): `ddp`, a copy each, or `fsdp`, a shard each."""
    log_every: int = 20
    """Steps between progress lines, if standard output is not a terminal."""
    evaluate_every: int = 100
    """Steps between evaluations of the held-out loss; 0 for never."""
    evaluate_windows: int = 256
    """Held-out windows in an evaluation; the same ones for every seed and batch size."""
    probe_every: int = 100
    """Steps between probes (distributions of the next token after fixed prompts); 0 for never."""
    probe_prompts: tuple[str, ...] = ()
    """The prompts; the last token of each is the target. Empty: the prompts of trainer/measurement/probes.py (bytes
    only)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        require_at_least("", self, 1, "steps", "log_every", "evaluate_windows")
        require_at_least("", self, 0, "evaluate_every", "probe_every")
        require("seed", self.seed, 0 <= self.seed < 2**63, "between 0 and 2**63 - 1")
        require("parallel", self.parallel, self.parallel in ("ddp", "fsdp"), "ddp or fsdp")
        known = self.device in ("auto", "cpu") or self.device.partition(":")[0] == "cuda"
        require("device", self.device, known, "auto, cpu, cuda or cuda:N")

    @property
    def tokens_per_step(self) -> int:
        return self.data.batch_size * self.model.context

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name (a file in trainer/recipes) or by a path that ends in .toml, then apply the overrides
    (`section.field=value`). A recipe with `base = "name"` overrides fields of that recipe. Raises UsageError.
    """
    values = _read(name)
    values.setdefault("name", Path(name).stem)
    for override in overrides:
        _override(values, override)
    return build(Recipe, values, "")


def recorded_recipe(config: Mapping[str, Any]) -> Recipe:
    """The recipe of a run, from the recorded configuration, which has other fields, too. Raises UsageError."""
    known = {each.name for each in fields(Recipe)}
    return build(Recipe, {name: value for name, value in config.items() if name in known}, "")


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise UsageError(f"There is no recipe {name!r}; choose one of: {known}, or give a path to a .toml.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The recipe {path} cannot be read: {error}.") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if base in (*above, name) or not isinstance(base, str):
        raise UsageError(f"The recipe {path} cannot be read: its base must be another recipe, not {base!r}.")
    return _merged(_read(base, (*above, name)), values)


def _merged(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over `base`, section by section."""
    merged = dict(base)
    for name, value in values.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merged(base[name], value) if both else value
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator:
        raise UsageError(f"The override {override!r} has no value; write it as section.field=value.")
    *sections, leaf = name.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"The override {override!r} cannot be used: {section} is not a section.")
    values[leaf] = _parse(text.strip())


def _parse(text: str) -> object:
    """A TOML value, or else the text itself, so that paths need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
