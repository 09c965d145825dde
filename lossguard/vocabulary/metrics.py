"""The metric registry: one row for each metric that Lossguard knows by name.

Every list of metrics elsewhere follows from this table: signals of the detection, gauges for Prometheus, titles and
axes of charts, curves of the report. A metric that is not in it is a custom metric: it is plotted under its name. The
store keeps all of them alike.

A new metric is a row here. A new signal is a row here, its detection parameters in
`monitor/detection/scoring/signals.py`, and an alert. An advisory signal is a row and its parameters.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from lossguard.vocabulary.states import IncidentKind

SKIPPED = "skipped"
"""Metric by which a loop reports how many updates its optimizer did not take since the row before; absent: none."""
MAX_SKIPPED, SKIP_WINDOW = 5, 50
"""The cap: number of skipped updates, within this many steps, that are no accident but an incident."""


class LogAxis(StrEnum):
    """When a chart of the metric has a logarithmic axis."""

    NEVER = "never"
    ALWAYS = "always"
    AUTO = "auto"  # when a spike would flatten everything else


@dataclass(frozen=True, slots=True)
class Metric:
    """The facts of one metric."""

    name: str
    """The key in `run.log`, in reports and in the store."""
    title: str
    """Heading of its chart, with the unit."""
    short_name: str = ""
    """Name in running text and legends; the metric's name where it is empty."""
    unit: str = ""
    """Unit, such as "nats per token"; empty where it has none."""
    is_count: bool = False
    """True if its values are whole numbers from 0 to 2**63 - 1."""
    detector_input: bool = False
    """True if the detection reads it: true for signals and for the other inputs of the detection."""
    incident_kind: IncidentKind | None = None
    """Kind of the incidents that begin with this metric. A metric with a kind is a signal."""
    advisory: bool = False
    """True if it is an advisory signal: the detection judges it where it is reported, and only warns."""
    gauge: str = ""
    """Name of the Prometheus gauge of its newest value; empty: it is not exported."""
    gauge_help: str = ""
    """The quantity that the gauge measures, as the subject of a sentence."""
    default_chart: bool = False
    """True if the Run page and the report draw it by default."""
    stands_for: str = ""
    """A metric that says the same: by default only one of the two is drawn, this one where the other is missing."""
    log_axis: LogAxis = LogAxis.NEVER
    tick_format: str = "~g"
    """Format of the axis, in d3-format."""


CHECKPOINT_SECONDS, EVALUATION_SECONDS, PAUSE_SECONDS = "checkpoint_seconds", "evaluation_seconds", "pause_seconds"
"""Seconds of a step that were not training; the goodput of a run is computed from them."""

METRICS: tuple[Metric, ...] = (
    Metric(
        "loss",
        "Loss (nats per token)",
        unit="nats per token",
        detector_input=True,
        incident_kind=IncidentKind.LOSS_SPIKE,
        gauge="lossguard_loss_nats",
        gauge_help="Cross-entropy, in nats per token",
        default_chart=True,
        log_axis=LogAxis.AUTO,
    ),
    Metric(
        "perplexity",
        "Perplexity",
        gauge="lossguard_perplexity",
        gauge_help="exp(loss)",
        stands_for="loss",
        log_axis=LogAxis.ALWAYS,
    ),
    Metric(
        "grad_norm",
        "Grad norm (L2, before clipping)",
        short_name="grad norm",
        detector_input=True,
        incident_kind=IncidentKind.GRAD_SPIKE,
        gauge="lossguard_grad_norm",
        gauge_help="Global L2 norm of the gradient before clipping",
        default_chart=True,
        log_axis=LogAxis.ALWAYS,
    ),
    Metric(
        "log_z",
        "Log Z (nats)",
        short_name="log Z",
        unit="nats",
        detector_input=True,
        incident_kind=IncidentKind.LOG_Z_DRIFT,
        gauge="lossguard_log_z_nats",
        gauge_help="Mean log partition function over tokens",
        default_chart=True,
        log_axis=LogAxis.AUTO,
    ),
    Metric("log_z_max", "Log Z, largest over tokens (nats)", short_name="log Z max", unit="nats"),
    Metric("z_loss", "z-loss (nats)", unit="nats"),
    Metric(
        "lr",
        "Learning rate",
        short_name="learning rate",
        detector_input=True,
        gauge="lossguard_learning_rate",
        gauge_help="Learning rate",
        default_chart=True,
        tick_format=".3~g",
    ),
    Metric(
        "tokens",
        "Tokens",
        unit="tokens",
        is_count=True,
        detector_input=True,
        gauge="lossguard_tokens",
        gauge_help="Tokens seen so far on the live line",
        tick_format="~s",
    ),
    Metric("batch_index", "Batch index", is_count=True, detector_input=True, tick_format="~s"),
    Metric(
        "skipped",
        "Skipped updates",
        short_name="skipped updates",
        unit="updates since the row before",
        detector_input=True,
    ),
    Metric("step_seconds", "Time per step (s)", short_name="time per step", unit="s", log_axis=LogAxis.ALWAYS),
    Metric(
        "data_seconds", "Waiting for data (s per step)", short_name="waiting for data", unit="s", detector_input=True
    ),
    Metric(
        CHECKPOINT_SECONDS, "Saving checkpoints, since the step before (s)", short_name="time for checkpoints", unit="s"
    ),
    Metric(EVALUATION_SECONDS, "Evaluation, since the step before (s)", short_name="time for evaluation", unit="s"),
    Metric(
        PAUSE_SECONDS, "Announced pause, since the step before (s)", short_name="time of announced pauses", unit="s"
    ),
    Metric(
        "tokens_per_second",
        "Throughput (tokens per second)",
        short_name="tokens per second",
        unit="tokens per second",
        default_chart=True,
        tick_format="~s",
    ),
    Metric(
        "update_norm",
        "Update norm (RMS of the step over RMS of the weights)",
        short_name="update norm",
        advisory=True,
        gauge="lossguard_update_norm_ratio",
        gauge_help="Root mean square of the optimizer's step over that of the weights",
        default_chart=True,
        log_axis=LogAxis.ALWAYS,
    ),
    Metric(
        "attention_logit_max",
        "Attention logit, largest",
        short_name="largest attention logit",
        advisory=True,
        gauge="lossguard_attention_logit_max",
        gauge_help="Largest attention logit that was looked at",
        default_chart=True,
        log_axis=LogAxis.AUTO,
    ),
    Metric(
        "expert_imbalance",
        "Expert imbalance (largest load over mean load, minus 1)",
        short_name="expert imbalance",
        advisory=True,
        gauge="lossguard_expert_imbalance_ratio",
        gauge_help="Largest load of an expert over the mean load, minus 1",
        default_chart=True,
    ),
    # The next one is derived from tokens and times where the loop does not report it.
    Metric(
        "throughput", "Throughput (tokens per second)", unit="tokens per second", default_chart=True, tick_format="~s"
    ),
    Metric("mfu", "Model FLOPs utilisation", short_name="MFU", tick_format=".0%"),
    Metric("mfu_6nd", "Model FLOPs utilisation (6ND)", short_name="MFU (6ND)", tick_format=".0%"),
    Metric(
        "mfu_full_attention",
        "Model FLOPs utilisation (full attention)",
        short_name="MFU (full attention)",
        tick_format=".0%",
    ),
    Metric(
        "held_out_loss",
        "Held-out loss (nats per token)",
        short_name="held-out loss",
        unit="nats per token",
        detector_input=True,
    ),
    Metric(
        "held_out_loss_se",
        "Standard error of the held-out loss (nats per token)",
        short_name="standard error of the held-out loss",
        unit="nats per token",
    ),
    Metric("held_out_bits_per_byte", "Held-out bits per byte", short_name="held-out bits per byte"),
    Metric(
        "held_out_difference",
        "Held-out loss minus the baseline's (nats per token)",
        short_name="held-out loss minus baseline",
        unit="nats per token",
    ),
)
"""All metrics, in the order in which lists and charts show them."""

FAMILIES: tuple[Metric, ...] = (
    Metric(
        "source_loss/",
        "Loss of {} (nats per token)",
        short_name="loss of {}",
        unit="nats per token",
        advisory=True,
        log_axis=LogAxis.AUTO,
    ),
    Metric(
        "layer_grad_norm/",
        "Grad norm of {} (L2, before clipping)",
        short_name="grad norm of {}",
        advisory=True,
        log_axis=LogAxis.ALWAYS,
    ),
)
"""Metrics of several series: `name` begins the names of all of them, {} in the texts is the rest of such a name."""
MAX_SIGNAL_NAME = 64
"""Characters of the name of a series that is judged: an incident has room for so many."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
COUNTS = tuple(metric.name for metric in METRICS if metric.is_count)
SIGNALS = tuple(metric.name for metric in METRICS if metric.incident_kind is not None)
DETECTOR_INPUTS = tuple(metric.name for metric in METRICS if metric.detector_input)


def in_order(names: Collection[str]) -> list[str]:
    """Return the metrics of the registry in its order, then the others by name."""
    return [name for name in BY_NAME if name in names] + sorted(set(names) - set(BY_NAME))


def default_charts(reported: Collection[str]) -> list[str]:
    """The metrics that are drawn by default of a run that reports these."""
    return [
        metric.name
        for metric in METRICS
        if metric.name in reported
        and (metric.default_chart or (metric.stands_for != "" and metric.stands_for not in reported))
    ]


def family_of(name: str) -> Metric | None:
    """The family that a metric is one of the series of; None where it is of none."""
    return next((each for each in FAMILIES if name.startswith(each.name) and name != each.name), None)


def known(name: str) -> Metric | None:
    """Return the facts of a metric, or of one series of a family; None for a custom metric."""
    family = None if name in BY_NAME else family_of(name)
    if family is None:
        return BY_NAME.get(name)
    series = name.removeprefix(family.name)
    return replace(family, name=name, title=family.title.format(series), short_name=family.short_name.format(series))


@lru_cache(maxsize=4096)  # asked for every name of every report
def is_advisory(name: str) -> bool:
    """Return True if the detection judges this metric where it is reported, and only warns."""
    if name in BY_NAME:
        return BY_NAME[name].advisory
    return family_of(name) is not None and len(name) <= MAX_SIGNAL_NAME


def detector_inputs(reported: Iterable[str]) -> list[str]:
    """Return what the detection reads of a run with these metrics: DETECTOR_INPUTS, then advisory signals."""
    return [*DETECTOR_INPUTS, *filter(is_advisory, reported)]


def title(name: str) -> str:
    """Heading of a metric's chart; its name where the registry does not know it."""
    return metric.title if (metric := known(name)) else name


def short_name(name: str) -> str:
    """A metric in running text."""
    return (metric.short_name if (metric := known(name)) else "") or name
