"""Signals come from the metric registry, and each has detection parameters."""

import pytest

from lossguard import metrics
from monitor.detection.curve import COLUMNS
from monitor.detection.scoring.signals import SIGNALS, parameters_of


def test_the_signals_are_those_of_the_registry_in_its_order() -> None:
    assert tuple(SIGNALS) == metrics.SIGNALS
    assert COLUMNS == metrics.DETECTOR_INPUTS


def test_a_signal_of_the_registry_without_parameters_is_a_clear_error() -> None:
    with pytest.raises(LookupError, match=r"names the signals entropy, .*scoring\.signals\.PARAMETERS has no"):
        parameters_of([*metrics.SIGNALS, "entropy"])
