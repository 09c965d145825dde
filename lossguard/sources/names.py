"""From the names that trainers log under to the metrics that Lossguard knows.

The table holds names as they stand in the sources of Hugging Face Trainer, Lightning, Accelerate examples, Megatron-LM,
DeepSpeed, torchtitan, OLMo-core, nanoGPT, nanochat, llm.c, litgpt, axolotl, TRL and Levanter.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.metrics import BY_NAME

AS_LOGGED = "logged/"
"""Before a name of the source that would be mistaken for a metric which another of its names has."""

RELEASED = "released/"
"""Before the name that a metric has had, where no name has the metric any more."""

SYSTEM_METRICS = "system/"
"""Prefix of what MLflow's client measures of the machine. Its steps count samples, not optimizer steps."""

_TRAIN = "(?:train|training|trainer)"
_CROSS_ENTROPY = "(?:ce|xent|nll|cross_?entropy|crossentropyloss)"
_HELD_OUT = "(?:eval|evaluation|val|valid|validation|dev|held_out|heldout)"

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "loss": (
        "loss",
        "lm_loss",  # Megatron-LM
        "loss_metrics_global_avg_loss",  # torchtitan
        f"(?:{_TRAIN}_)?{_CROSS_ENTROPY}(?:_loss)?(?:_step)?",  # OLMo-core: train/CE loss
        f"{_TRAIN}_(?:step_|batch_|iter_)?loss(?:_step|_batch|_iter)?",  # train_loss_step: Lightning
        f"{_TRAIN}_lm_loss|lm_loss_{_TRAIN}",
        f"loss_{_TRAIN}(?:_step)?|loss_(?:step|batch|iter)|(?:step|batch|iter)_loss",
        "lm_loss_training_lm_loss",  # Megatron-DeepSpeed
        "train_(?:samples|steps)_train_loss|train_train_loss|metrics_train_loss",  # DeepSpeed, with samples
        f"{_TRAIN}_(?:total|global|global_avg|mean|avg|average)_loss|{_TRAIN}_loss_(?:total|mean|avg|average)",
        "(?:total|global_avg|mean|avg|average)_loss|loss_(?:total|mean|avg|average)",
        f"(?:{_TRAIN}_)?(?:running|smoothed?|smooth|ema)_loss|(?:{_TRAIN}_)?loss_(?:running|smoothed?|smooth|ema)",
        f"(?:{_TRAIN}_)?loss_epoch|(?:{_TRAIN}_)?epoch_loss|epoch_{_TRAIN}_loss|{_TRAIN}_epoch_{_TRAIN}_loss",
    ),
    "grad_norm": (
        "grad_norm",
        "optim_total_grad_norm",  # OLMo-core
        f"(?:{_TRAIN}_|optim_|optimizer_|optimiser_)?(?:global_|total_)?(?:grad|gradient)s?_norm(?:_step|_total)?",
        f"(?:{_TRAIN}_|optim_)?(?:gnorm|gradnorm)",
        "grad_norm_grad_norm",  # Megatron-DeepSpeed
        "grad_norm_total|grad_2_0_norm_total|grad_2_norm_total|grad_l2_norm|(?:train_)?grad_norm_l2",
        "grad_norm_all|(?:train_)?grad_norm_(?:pre|before)_clip(?:ping)?|(?:train_)?(?:pre|before)_clip_grad_norm",
    ),
    "lr": (
        "lr",
        f"(?:{_TRAIN}_|optim_|optimizer_|optimiser_|opt_|trainer_|schedule_|scheduler_)?(?:lr|learning_rate)(?:_step)?",
        "train_samples_lr|learning_rate_learning_rate",  # DeepSpeed, Megatron-DeepSpeed
        "(?:optim_)?(?:lr|learning_rate)_(?:group_?|pg_?|param_group_?)?0",  # OLMo-core: optim/LR (group 0)
        # Lightning: lr-AdamW, lr-AdamW/pg1
        "lr_(?!group|pg|param|decay|mult|scale|scheduler|warmup|ratio|min|max)[a-z][a-z0-9]*(?:_pg1|_1)?",
    ),
    "tokens": (
        "tokens",
        "num_input_tokens_seen",  # Hugging Face
        f"(?:{_TRAIN}_|throughput_|data_|perf_)?(?:consumed|total|cumulative|cum|num|n)_(?:train_|input_)?tokens(?:_seen)?",
        f"(?:{_TRAIN}_|throughput_|data_|perf_)?(?:num_|n_|total_)?tokens_(?:seen|consumed|processed|trained|so_far|total|cum)",
        "train_num_input_tokens_seen|train_num_tokens|consumed_train_tokens",
    ),
    "log_z": ("log_z", f"(?:{_TRAIN}_)?(?:log_?z|logz|mean_log_?z|log_z_mean|log_partition|logsumexp|mean_logsumexp)"),
    "log_z_max": ("log_z_max", f"(?:{_TRAIN}_)?(?:max_log_?z|log_?z_max)"),
    "z_loss": ("z_loss", f"(?:{_TRAIN}_)?z_?loss(?:_step)?"),
    "held_out_loss": (
        "held_out_loss",
        f"{_HELD_OUT}_(?:lm_|ce_)?loss(?:_step)?|(?:lm_)?loss_{_HELD_OUT}|lm_loss_{_HELD_OUT}",
        "validation_metrics_loss",  # torchtitan
        "validation_metrics_global_avg_loss",
        f"{_HELD_OUT}_loss_epoch|{_HELD_OUT}_(?:mean_|avg_)?loss|{_HELD_OUT}_{_CROSS_ENTROPY}(?:_loss)?",
        "lm_loss_validation_lm_loss(?:_validation)?",  # Megatron-DeepSpeed
    ),
    "held_out_bits_per_byte": ("held_out_bits_per_byte", f"{_HELD_OUT}_(?:bpb|bits_per_byte)"),
    "tokens_per_second": (
        "tokens_per_second",
        f"(?:{_TRAIN}_|throughput_|perf_)?(?:tokens|tok|toks)_(?:per_second|per_sec|per_s|sec|s)",
        "throughput_total_tokens_per_second|throughput_tokens_per_second",
    ),
    "step_seconds": (
        "step_seconds",
        "iteration_time",  # Megatron-LM
        "time_metrics_end_to_end_s",  # torchtitan
        "throughput_duration",  # Levanter
        "train_dt",  # nanochat
        "(?:train_|perf_)?(?:step_time_s|seconds_per_step)",
    ),
    "data_seconds": (
        "data_seconds",
        "time_metrics_data_loading_s",  # torchtitan
        "throughput_loading_time",  # Levanter
    ),
}
"""Metric -> what its names look like in canonical form (see `canonical`), the most specific first."""

_EPOCH_MEAN = re.compile("(?:.*_)?epoch(?:_.*)?")


def canonical(name: str) -> str:
    """`name` in small letters, with one underscore for whatever separates its words: "Train/loss" is train_loss."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@dataclass(frozen=True, slots=True)
class Match:
    """A metric that a name may stand for; of several names in one run the lowest `rank` wins."""

    metric: str
    rank: int

    @property
    def is_epoch_mean(self) -> bool:
        return self.rank >= _EPOCH_RANK


_EPOCH_RANK = 1000
_RANKED = [
    (re.compile(pattern), metric, rank)
    for metric, patterns in PATTERNS.items()
    for rank, pattern in enumerate(patterns)
]


def match_of(name: str) -> Match | None:
    """Return what `name` may stand for by the table; None for a name that it does not know."""
    if name in BY_NAME:
        return Match(name, -1)
    text = canonical(name)
    for pattern, metric, rank in _RANKED:
        if pattern.fullmatch(text):
            return Match(metric, rank + (_EPOCH_RANK if _EPOCH_MEAN.fullmatch(text) else 0))
    return None


class NameMap:
    """The names of one run. Which of its names a metric has is decided once, when the first of them comes.

    Of several names in one row the most specific wins. Only the mean of an epoch gives way to a later name: per-step
    values tell more. What is not a known metric keeps its name.
    """

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        """`overrides`: metric -> name in the source, as in {"loss": "train/ce"}. Raises ConfigurationError for a metric
        that the registry does not have, and for a name that stands for two."""
        self.overrides = dict(overrides or {})
        for metric, name in self.overrides.items():
            if metric not in BY_NAME:
                known = ", ".join(BY_NAME)
                raise ConfigurationError(f"--map {metric}={name}: {metric} is no metric; it must be one of {known}")
        names = list(self.overrides.values())
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"--map: {doubles[0]} cannot stand for two metrics at once")
        self._by_override = {name: metric for metric, name in self.overrides.items()}
        self.chosen: dict[str, str] = {}
        """Metric -> the name in the source that has it, as far as it has come; behind RELEASED: that has had it."""
        self._targets: dict[str, str] = {}  # of the names that have come

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "NameMap":
        """From the values of --map, such as "loss=train/ce". Raises ConfigurationError."""
        overrides: dict[str, str] = {}
        for text in texts:
            metric, equals, name = text.partition("=")
            if not (metric and equals and name):
                raise ConfigurationError(f"--map {text}: write metric=name, as in --map loss=train/ce")
            if metric in overrides:
                raise ConfigurationError(f"--map {text}: {metric} is {overrides[metric]} already")
            overrides[metric] = name
        return cls(overrides)

    def go_on_with(self, chosen: Mapping[str, str]) -> None:
        """Leave each metric with the name that had it when the source was read before, unless an override differs."""
        for metric, known in chosen.items():
            name = known.removeprefix(RELEASED)
            if self.overrides.get(metric, name) == name and self._by_override.get(name, metric) == metric:
                self.chosen[metric] = known
                self._targets[name] = metric if known == name else _own_name(name)

    def metric_of(self, name: str) -> str | None:
        """The metric that `name` stands for by the overrides and the table; None: it keeps its own name."""
        match = self._match(name)
        return None if match is None else match.metric

    def mapped(self, values: Mapping[str, float]) -> dict[str, float]:
        """A row of the source under our names."""
        targets = self._targets
        try:
            return {targets[name]: value for name, value in values.items()}
        except KeyError:
            self._decide([name for name in values if name not in targets])
        return {self._targets[name]: value for name, value in values.items()}

    def target_of(self, name: str) -> str:
        """The name under which `name` is recorded, decided now if it has not come before."""
        if name not in self._targets:
            self._decide([name])
        return self._targets[name]

    def missing(self) -> list[str]:
        """Metrics whose name by an override has not come yet."""
        chosen = self.chosen
        return [metric for metric, name in self.overrides.items() if chosen.get(metric) not in (name, RELEASED + name)]

    def is_released(self, metric: str) -> bool:
        """Return True if no name has `metric` any more: rows that were recorded before may have it."""
        return self.chosen.get(metric, "").startswith(RELEASED)

    def release(self, metric: str) -> str:
        """The name that has `metric` keeps its own name from now on, and no other one gets the metric. Returns it."""
        name = self.chosen[metric]
        self.chosen[metric] = RELEASED + name
        self._targets[name] = _own_name(name)
        return name

    def _match(self, name: str) -> Match | None:
        if name in self._by_override:
            return Match(self._by_override[name], -2)
        match = match_of(name)
        return None if match is None or match.metric in self.overrides else match

    def _decide(self, names: list[str]) -> None:
        """Choose for each metric the best of the new names, unless a name was chosen before."""
        matches = {name: match for name in names if (match := self._match(name)) is not None}
        for name, match in sorted(matches.items(), key=lambda item: item[1].rank):
            before = self.chosen.get(match.metric)
            if before is not None:
                earlier = self._match(before)
                if earlier is None or not earlier.is_epoch_mean or match.is_epoch_mean:
                    continue
                self._targets[before] = _own_name(before)
            self.chosen[match.metric] = name
        for name in names:
            chosen = name in matches and self.chosen[matches[name].metric] == name
            self._targets[name] = matches[name].metric if chosen else _own_name(name)


def _own_name(name: str) -> str:
    """`name`, unless it is that of a metric, which it then is not."""
    return AS_LOGGED + name if name in BY_NAME else name
