"""The signals that are judged, and the parameters of each one's detector.

Which metrics are signals is decided in the metric registry (`lossguard.vocabulary.metrics`); each of them needs
parameters here.
An advisory signal is judged only in runs that report it, and only warns: it neither opens nor prolongs an incident of
another signal, and no policy answers it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossguard.vocabulary import metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalParameters:
    """Parameters by which one signal is judged, in its own unit, or in nats if its logarithm is judged."""

    log: bool = False
    """Judge the logarithm (a norm's noise is multiplicative)."""
    two_sided: bool = False
    """A fall is as much an alarm as a rise."""
    detects_drift: bool = False
    """A slow rise is a divergence."""
    is_guarded: bool = False
    """A level that is out of band after an alarm becomes normal only when a person accepts it."""
    min_noise: float = 1e-9
    """Lower bound of the noise, in the judged unit."""
    threshold_factor: float = 1.0
    """Multiplies the thresholds: a precursor must be surer than the loss itself."""
    warmup_rows: int = 0
    """Rows before anything but a gross rise is an alarm, where they are more than the setting of that name."""
    gross_rise: float = np.inf
    """A rise (in the judged unit) that is an alarm even before anything is known of the noise."""
    gross_fraction: float = 0.0
    """Gross rise as a fraction of the level; the larger of the two counts."""
    is_advisory: bool = False
    """True if the signal only warns."""
    false_alarm_share: float = 1.0
    """Share of the target rate of false alarms."""


LOG_Z_WARMUP = 128
"""Log Z finds its level in the first steps of a run: by leaps, and faster than its noise is learnt."""

PARAMETERS = {
    # A rise by 1 nat and by 30% multiplies the perplexity by e at least: no warm-up makes such a step.
    "loss": SignalParameters(detects_drift=True, is_guarded=True, gross_rise=1.0, gross_fraction=0.3),
    "grad_norm": SignalParameters(log=True, min_noise=0.1, threshold_factor=2.2, gross_rise=float(np.log(30.0))),
    "log_z": SignalParameters(two_sided=True, threshold_factor=3.3, warmup_rows=LOG_Z_WARMUP),
}

ADVISORY_SHARE = 0.02
"""Share of the target rate of false alarms for each advisory signal: MAX_ADVISORY of them have a third of it."""
MAX_ADVISORY = 16
"""Advisory signals of a run that are judged: those reported first."""


def _advisory(**others: Any) -> SignalParameters:
    return SignalParameters(
        is_advisory=True, false_alarm_share=ADVISORY_SHARE, warmup_rows=LOG_Z_WARMUP, threshold_factor=2.2, **others
    )


ADVISORY = {
    "update_norm": _advisory(log=True, min_noise=0.1),
    "attention_logit_max": _advisory(log=True, min_noise=0.03),
    "expert_imbalance": _advisory(min_noise=0.02),
    "source_loss/": _advisory(min_noise=0.005),
    "layer_grad_norm/": _advisory(log=True, min_noise=0.1),
}
"""Parameters of the advisory signals and, by the beginning of their names, of families of them."""


def parameters_of(signals: Iterable[str]) -> Mapping[str, SignalParameters]:
    """The parameters of these signals. Raises LookupError for a signal that has none."""
    missing = [name for name in signals if name not in PARAMETERS]
    if missing:
        raise LookupError(
            f"the metric registry (lossguard/vocabulary/metrics.py) names the signals {', '.join(missing)}, "
            f"for which {__name__}.PARAMETERS has no detection parameters"
        )
    return {name: PARAMETERS[name] for name in signals}


SIGNALS = parameters_of(metrics.SIGNALS)


def parameters(signal: str) -> SignalParameters:
    """The parameters of a signal or an advisory signal. Raises LookupError for any other metric."""
    if signal in SIGNALS:
        return SIGNALS[signal]
    if not metrics.is_advisory(signal):
        raise LookupError(f"{signal!r} is no signal of the metric registry (lossguard/vocabulary/metrics.py)")
    family = metrics.family_of(signal)
    return ADVISORY[signal if family is None else family.name]
