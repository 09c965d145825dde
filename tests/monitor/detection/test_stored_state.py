"""States that other releases stored: earlier ones continue, later ones as far as they can be read."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.values import plain_json
from monitor.detection import DetectionEngine, Effect, IncidentChanged, Policy, Rows
from tests.monitor.detection.runs import healthy, rows_of, spiked

FILES = sorted((Path(__file__).parent / "states").glob("*.json"))
RISING = [file for file in FILES if file.stem.endswith("_divergence") and "after" not in file.stem]
"""A slow rise is open: the present release measures it in another way."""


def stored(file: Path) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads(file.read_text())
    return recording


def engine_of(recording: dict[str, Any]) -> DetectionEngine:
    policy = Policy.from_dict({"name": "palm"} | recording["policy"])  # the only one of the release that stored it
    return DetectionEngine(policy=policy, can_roll_back=recording["can_roll_back"])


def rows_from(first: int, metrics: dict[str, list[Any]]) -> Rows:
    columns = {name: [float(value) for value in column] for name, column in metrics.items()}
    return Rows.of(range(first, first + len(columns["loss"])), **columns)


def replay(engine: DetectionEngine, event: dict[str, Any]) -> list[Effect]:
    """Let the next recorded event happen."""
    arguments = {name: value for name, value in event.items() if name != "event"}
    match event["event"]:
        case "rows":
            rows = rows_from(**arguments)
            return engine.feed(rows, restorable=range(0, int(rows.steps[-1]) + 1, 50))
        case "fork":
            arguments["history"] = [rows_from(**part) for part in arguments["history"]]
            return engine.fork(**arguments)
        case "applied":
            return engine.order_applied(**arguments)
        case "failed":
            return engine.order_failed(**arguments)
        case name:
            effects: list[Effect] = getattr(engine, name)(**arguments)
            return effects


FACTS = {
    "incident": ["kind", "signal", "onset_step", "detected_step"],
    "intervention": ["kind", "decided_step", "rewind_to", "skip_from", "skip_to"],
}


def outline(effects: list[Any]) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What was found and what was done, without figures that the present release measures in another way."""
    found: dict[tuple[str, int], tuple[Any, ...]] = {}
    for effect, (kind, facts) in product(effects, FACTS.items()):
        if each := effect.get(f"{kind.title()}Changed", {}).get(kind):
            found.setdefault((kind, each["number"]), tuple(each[name] for name in facts))
    return found


# Earlier versions


@pytest.mark.parametrize("file", [file for file in FILES if file not in RISING], ids=lambda file: file.stem)
def test_a_stored_state_continues_with_the_findings_and_orders_of_the_release_that_stored_it(file: Path) -> None:
    recording = stored(file)
    engine = engine_of(recording)
    assert engine.load_state_dict(recording["state"]) == frozenset()
    effects = [effect for event in recording["events"] for effect in replay(engine, event)]
    present = [plain_json({type(effect).__name__: asdict(effect)}) for effect in effects]
    assert outline(present) == outline([effect for each in recording["effects"] for effect in each])


def test_a_state_of_version_3_continues_as_the_present_one_would() -> None:
    rows, engine = rows_of(spiked(at=420, steps=600)), DetectionEngine()
    engine.feed(rows[:400])
    state = json.loads(json.dumps(engine.state_dict()))
    state["version"] = state["detectors"]["version"] = 3
    for signal in state["detectors"]["signals"].values():
        del signal["recent"]["plain"], signal["thresholds"]["sure"], signal["baseline"]["usual"]
    again, new = loaded(state)
    assert new == frozenset()
    present = [
        [each.incident for each in it.feed(rows[400:]) if isinstance(each, IncidentChanged)] for it in (engine, again)
    ]
    first, second = ([(each.onset_step, each.detected_step) for each in incidents] for incidents in present)
    assert first == second != []


@pytest.mark.parametrize("file", RISING, ids=lambda file: file.stem)
def test_a_slow_rise_that_an_earlier_release_found_goes_on_as_the_same_incident(file: Path) -> None:
    recording = stored(file)
    engine = engine_of(recording)
    engine.load_state_dict(recording["state"])
    assert engine.response.incidents.open is not None
    effects = [effect for event in recording["events"] for effect in replay(engine, event)]
    numbers = {effect.incident.number for effect in effects if isinstance(effect, IncidentChanged)}
    assert numbers <= {1} == {engine.response.incidents.num_incidents}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_migrated_state_is_stored_in_the_present_version_and_is_then_the_same(file: Path) -> None:
    recording = stored(file)
    engine, again = engine_of(recording), engine_of(recording)
    engine.load_state_dict(recording["state"])
    state = json.loads(json.dumps(engine.state_dict(), allow_nan=False))
    assert (state["version"], state["detectors"]["version"]) == (4, 4)
    again.load_state_dict(state)
    assert again.state_dict() == state


# Signals and numbers that come and go


def engine_at(step: int) -> DetectionEngine:
    engine = DetectionEngine(policy=Policy(mode="auto"))  # type: ignore[arg-type]
    engine.feed(rows_of(spiked(at=300))[:step], restorable=range(0, step, 50))
    return engine


def loaded(state: dict[str, Any]) -> tuple[DetectionEngine, frozenset[str]]:
    engine = DetectionEngine(policy=Policy(mode="auto"))  # type: ignore[arg-type]
    return engine, engine.load_state_dict(json.loads(json.dumps(state, allow_nan=False)))


@pytest.mark.parametrize("signal", ["loss", "grad_norm", "log_z"])
def test_a_signal_that_the_state_lacks_is_reported_and_relearnt_from_stored_rows(signal: str) -> None:
    engine = engine_at(310)
    whole = deepcopy(engine.state_dict())
    state = deepcopy(whole)
    for part in (state["detectors"]["signals"], *(state["detectors"]["recent"][name] for name in ("z", "values"))):
        del part[signal]
    again, new = loaded(state)
    assert new == {signal}
    again.relearn(new, rows_of(spiked(at=300))[:310].split(64))
    assert again.state_dict() == whole


def test_relearning_a_signal_leaves_the_others_and_the_incidents_alone() -> None:
    state = engine_at(310).state_dict()
    again, _ = loaded(state)
    again.relearn({"grad_norm"}, [rows_of(healthy(400))[60:310]], [(200, "data_mix")])
    after = again.state_dict()
    assert after["detectors"]["signals"]["grad_norm"] != state["detectors"]["signals"]["grad_norm"]
    for part in (state, after):
        del part["detectors"]["signals"]["grad_norm"], part["detectors"]["recent"]
    assert after == state


def numbers_of(detector: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for part, numbers in detector.items():
        yield from ((part, name) for name in numbers or ())


def test_a_detector_that_lacks_any_number_is_fresh_and_its_signal_is_reported() -> None:
    state = engine_at(310).state_dict()
    fresh = DetectionEngine().state_dict()["detectors"]["signals"]["loss"]
    for part, name in numbers_of(state["detectors"]["signals"]["loss"]):
        changed = deepcopy(state)
        del changed["detectors"]["signals"]["loss"][part][name]
        again, new = loaded(changed)
        assert new == {"loss"}
        assert again.state_dict()["detectors"]["signals"]["loss"] == fresh
        again.feed(rows_of(spiked(at=300))[310:400])


def test_a_signal_and_numbers_that_this_release_does_not_know_are_dropped() -> None:
    engine = engine_at(310)
    state = deepcopy(engine.state_dict())
    state["detectors"]["signals"]["entropy"] = deepcopy(state["detectors"]["signals"]["loss"])
    state["detectors"]["recent"]["z"]["entropy"] = state["detectors"]["recent"]["z"]["loss"]
    state["detectors"]["signals"]["loss"]["baseline"]["kurtosis"] = 3.0
    state["incidents"]["open"] |= {"mood": 1.0}
    state["incidents"]["open"]["incident"] |= {"severity": 2}
    state["interventions"] |= {"budget": 7}
    state |= {"version": 5, "weather": {"wind": "NaN"}}
    again, new = loaded(state)
    assert new == frozenset()
    assert again.state_dict() == engine.state_dict()
    assert again.feed(rows_of(spiked(at=300))[310:]) == engine.feed(rows_of(spiked(at=300))[310:])


def test_a_snapshot_that_lacks_a_signal_relearns_it_from_the_rows_before_it_and_since() -> None:
    rows, engine, straight = rows_of(healthy(400)), DetectionEngine(), DetectionEngine()
    engine.feed(rows[:200])
    snapshot = deepcopy(engine.detectors_state())
    del snapshot["signals"]["grad_norm"]
    declared = [(150, "data_mix"), (220, "batch_size")]
    engine.fork(250, "rewind", [rows[200:250]], snapshot, declared=declared, earlier=rows[:200].split(64))
    for step, kind in declared:
        straight.declare(step, kind)
    straight.feed(rows[:250])
    signals = engine.detectors_state()["signals"]
    assert signals["grad_norm"] == straight.detectors_state()["signals"]["grad_norm"]
    assert signals["loss"] != straight.detectors_state()["signals"]["loss"]  # its snapshot did not see step 150


def test_the_rows_before_a_snapshot_are_not_read_when_it_has_every_signal() -> None:
    def unread() -> Iterator[Rows]:
        raise AssertionError
        yield

    rows, engine = rows_of(healthy(400)), DetectionEngine()
    engine.feed(rows[:200])
    engine.fork(250, "rewind", [rows[200:250]], engine.detectors_state(), earlier=unread())


# Later versions


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, each in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from paths(each, (*before, key))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FILES), st.sampled_from([1, 2, 3, 4, 5]), st.data())
def test_a_state_that_lacks_any_part_loads_and_continues(file: Path, version: int, data: st.DataObject) -> None:
    recording = stored(file)
    engine = engine_of(recording)
    engine.load_state_dict(recording["state"])
    state = recording["state"] if version == 1 else json.loads(json.dumps(engine.state_dict() | {"version": version}))
    path = data.draw(st.sampled_from([path for path in paths(state) if path[-1] != "version"]))
    part = state
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    again = engine_of(recording)
    again.load_state_dict(state)
    step = max(again.last_step, 0) + 1
    again.feed(rows_of(spiked(at=10, steps=60), start=step))
    json.dumps(again.state_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", [None, 7, "text", [1, 2]])
def test_a_part_of_another_type_is_left_fresh(kind: Any) -> None:
    state = engine_at(310).state_dict()
    for name in ("detectors", "incidents", "interventions", "batches"):
        again, new = loaded(state | {"version": 5, name: kind})
        assert bool(new) == (name == "detectors")
        again.feed(rows_of(spiked(at=300))[310:400], restorable=range(0, 300, 50))


def test_kinds_and_states_of_a_later_release_are_left_out() -> None:
    state = deepcopy(engine_at(330).state_dict())
    state["version"] = 5
    state["incidents"]["open"]["incident"]["kind"] = "entropy_spike"
    state["interventions"]["active"]["state"] = "paused"
    again, new = loaded(state)
    assert new == frozenset()
    assert (again.response.incidents.open, again.response.interventions.active) == (None, None)
    assert again.response.interventions.num_interventions == 1
    again.feed(rows_of(spiked(at=300))[330:400])


# Where checkpoints are kept, and how long a step takes


def test_the_tiers_and_the_time_of_a_step_are_stored_and_an_earlier_release_reads_the_steps_alone() -> None:
    engine = engine_at(320)
    engine.set_restorable([0, 50, 60], [{"tier": "memory", "steps": [60], "load_seconds": 0.5}])
    again, _ = loaded(engine.state_dict())
    assert again.response.restorable == engine.response.restorable
    assert again.state_dict() == engine.state_dict()
    assert engine.state_dict()["restorable"] == [0, 50, 60]


@pytest.mark.parametrize("tiers", [None, 7, [{"tier": "disk"}], [{"steps": 3}]])
def test_a_state_whose_tiers_are_missing_or_of_another_form_keeps_its_steps(tiers: Any) -> None:
    state = engine_at(320).state_dict()
    del state["step_times"]
    engine, _ = loaded({**state, "restorable_tiers": tiers})
    assert [each.step for each in engine.response.restorable] == state["restorable"]
    assert engine.response.step_times.median() is None
