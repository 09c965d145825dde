"""Signals come from the metric registry, and each has detection parameters."""

import pytest

from lossguard.vocabulary import metrics
from monitor.detection.scoring.signals import ADVISORY, SIGNALS, parameters, parameters_of


def test_the_signals_are_those_of_the_registry_in_its_order() -> None:
    assert tuple(SIGNALS) == metrics.SIGNALS


def test_a_signal_of_the_registry_without_parameters_is_a_clear_error() -> None:
    with pytest.raises(LookupError, match=r"names the signals entropy, .*scoring\.signals\.PARAMETERS has no"):
        parameters_of([*metrics.SIGNALS, "entropy"])


def test_every_advisory_signal_and_family_has_parameters_and_a_small_share_of_the_false_alarms() -> None:
    advisory = {metric.name for metric in metrics.METRICS if metric.advisory}
    assert set(ADVISORY) == advisory | {family.name for family in metrics.FAMILIES}
    for name in ADVISORY:
        signal = parameters(f"{name}web" if name.endswith("/") else name)
        assert (signal.is_advisory, signal.false_alarm_share) == (True, 0.02)
    with pytest.raises(LookupError, match="'entropy' is no signal"):
        parameters("entropy")
