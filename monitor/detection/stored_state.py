"""Versions of the detection's stored state.

A state is JSON with an integer `version`. A state of an earlier version is migrated when it is loaded; one of a later
version is taken as it is, and whoever loads it reads what it knows. Version 1 has no version number.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from monitor.detection.encoding import pack, restore, unpack
from monitor.detection.scoring.baseline import LOWEST
from monitor.detection.scoring.drift import HELD_SCORE, LevelDrift, Rise
from monitor.detection.scoring.scan import SPANS
from monitor.detection.scoring.signals import SIGNALS, SignalParameters
from monitor.detection.scoring.threshold import NUM_BINS

VERSION = 4

State = Mapping[str, Any]

V2_MIN_DRIFT = 5.0
"""Noises above the lowest level that were a slow divergence."""


def migrate(state: State) -> State:
    """The state of an engine in the present version."""
    state = _engine_from_v1(state) if _version(state) == 1 else state
    state = _engine_from_v2(state) if _version(state) == 2 else state
    return _engine_from_v3(state) if _version(state) == 3 else state


def migrate_detectors(state: State) -> State:
    """The state of a detector set, such as a snapshot, in the present version."""
    state = _detectors_from_v1(state) if _version(state) == 1 else state
    state = _detectors_from_v2(state) if _version(state) == 2 else state
    return _detectors_from_v3(state) if _version(state) == 3 else state


def _version(state: State) -> Any:
    return state.get("version", 1)


def _renamed(state: State | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    """The entries of `state` that `names` maps, under their new names."""
    if state is None:
        return None
    return {new: state[old] for old, new in names.items() if old in state}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


V1_BASELINE = _same("count", "level", "noise", "old_noise", "declared", "window", "residuals", "block") | {
    "memory": "autocorrelation",
    "silent": "values_without_update",
}
V1_DRIFT = {
    "low": "lowest_level",
    "low_step": "lowest_step",
    "drift": "drift",
    "drifting": "values_above_threshold",
    "tamed": "winsorised",
}
V1_RESIDUALS = _same("z", "last_z", "last_alarm")
V1_THRESHOLDS = {"counts": "histograms", "thresholds": "values"}
V1_OPEN_INCIDENT = _same(
    *("incident", "check_step", "check_excess", "peak_excess", "excess", "rising_rows", "falls", "rises")
) | {
    "moved": "loss_moved",
    "last_loss": "previous_loss",
    "last_out": "last_step_out_of_band",
    "calm": "calm_rows",
    "lull": "previous_calm_rows",
    "left": "remaining_excess",
    "unburst": "rows_since_alarm",
    "broken": "non_finite",
    "root": "first_onset_step",
    "known": "expectation_known",
    "waiting": "wait_reasons",
    "settled": "no_further_action",
}
V1_INCIDENTS = {
    "treated": "under_verification",
    "pending": "pending_outlier",
    "root": "first_onset_step",
    "plateau_from": "plateau_step",
    "incidents": "num_incidents",
}
V1_INTERVENTIONS = {
    "made": "num_interventions",
    "spent": "rollbacks_used",
    "active": "active",
    "last": "last_unsuccessful",
}


def _engine_from_v1(state: State) -> State:
    incidents = _renamed(state, V1_INCIDENTS) or {}
    return {
        "version": 2,
        "detectors": _detectors_from_v1(state.get("bank", {})),
        "incidents": incidents | {"open": _renamed(state.get("episode"), V1_OPEN_INCIDENT)},
        "interventions": _renamed(state.get("care"), V1_INTERVENTIONS),
    } | {name: state[name] for name in ("batches", "restorable", "last_step") if name in state}


def _detectors_from_v1(state: State) -> State:
    return {
        "version": 2,
        "signals": {name: _detector_from_v1(detector) for name, detector in state.get("detectors", {}).items()},
        "recent": {name: state[name] for name in ("steps", "z", "values") if name in state},
    } | {name: state[name] for name in ("declared", "log_lr") if name in state}


def _detector_from_v1(state: State) -> State:
    return {
        "baseline": _renamed(state, V1_BASELINE),
        "drift": _renamed(state, V1_DRIFT),
        "recent": _renamed(state, V1_RESIDUALS),
        "thresholds": _renamed(state.get("tails"), V1_THRESHOLDS),
    }


def _engine_from_v2(state: State) -> State:
    detectors = restore(dict, state.get("detectors")) or {"version": 2}
    return {**state, "version": 3, "detectors": _detectors_from_v2(detectors)}


def _detectors_from_v2(state: State) -> State:
    stored = restore(dict, state.get("signals")) or {}
    known = [name for name in stored if name in SIGNALS]
    signals = {name: restore(partial(_detector_from_v2, SIGNALS[name]), stored[name]) for name in known}
    return {**state, "version": 3, "signals": signals}


def _detector_from_v2(signal: SignalParameters, state: State) -> State:
    """The slow rise had a threshold of its own among the others, and was measured from the lowest level so far."""
    thresholds = {
        "histograms": pack(unpack(state["thresholds"]["histograms"], "<f4")[: len(SPANS) * NUM_BINS], "<f4"),
        "values": pack(unpack(state["thresholds"]["values"])[: len(SPANS)]),
    }
    drift = _drift_from_v2(state) if signal.detects_drift else None
    return {
        "baseline": {**state["baseline"], "values_fallen": 0, "may_adopt": not signal.is_guarded},
        "drift": drift,
        "recent": {**state["recent"], "values": pack(np.full(4, np.nan))},
        "thresholds": thresholds,
    }


def _drift_from_v2(state: State) -> State:
    """What is known of the lowest level, and of a rise from it that goes on; the wandering is learnt anew."""
    stored, new = state["drift"], LevelDrift()
    new.lowest_level, new.lowest_step = stored["lowest_level"], stored["lowest_step"]
    if stored["drift"] >= V2_MIN_DRIFT:
        noise = state["baseline"]["noise"]
        threshold, height = V2_MIN_DRIFT * noise, stored["drift"] * noise
        new.rise = Rise(new.lowest_level, new.lowest_step, threshold, height)
        new.drift, new.rise_step, new.reference = HELD_SCORE, new.lowest_step, new.lowest_level
    return new.state_dict()


def _engine_from_v3(state: State) -> State:
    detectors = restore(dict, state.get("detectors")) or {"version": 3}
    return {**state, "version": 4, "detectors": migrate_detectors(detectors)}


def _detectors_from_v3(state: State) -> State:
    stored = restore(dict, state.get("signals")) or {}
    signals = {name: restore(_detector_from_v3, detector) for name, detector in stored.items()}
    return {**state, "version": 4, "signals": signals}


def _detector_from_v3(state: State) -> State:
    """Long sums were of prewhitened values too, an action had the thresholds of an incident; there was one level."""
    thresholds = state["thresholds"]
    return {
        **state,
        "baseline": {**state["baseline"], "usual": LOWEST},
        "recent": {**state["recent"], "plain": ""},
        "thresholds": {**thresholds, "sure": thresholds["values"]},
    }
