"""States that earlier releases stored: this release loads them and continues exactly where they stopped."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lossguard.json_values import plain_json
from monitor.detection import DetectionEngine, Effect, Policy, Rows

FILES = sorted((Path(__file__).parent / "states").glob("*.json"))


def stored(file: Path) -> dict[str, Any]:
    story: dict[str, Any] = json.loads(file.read_text())
    return story


def engine_of(story: dict[str, Any]) -> DetectionEngine:
    return DetectionEngine(policy=Policy.from_dict(story["policy"]), can_roll_back=story["can_roll_back"])


def rows_from(first: int, metrics: dict[str, list[Any]]) -> Rows:
    columns = {name: [float(value) for value in column] for name, column in metrics.items()}
    return Rows.of(range(first, first + len(columns["loss"])), **columns)


def replay(engine: DetectionEngine, event: dict[str, Any]) -> list[Effect]:
    """Let the next event of a story happen."""
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


def without_reasons(value: Any) -> Any:
    """The numbers, kinds and states; sentences may be worded anew."""
    if isinstance(value, dict):
        return {name: without_reasons(each) for name, each in value.items() if name != "reasons"}
    return [without_reasons(each) for each in value] if isinstance(value, list) else value


def facts(effects: list[Effect]) -> list[Any]:
    return [without_reasons(plain_json({type(effect).__name__: asdict(effect)})) for effect in effects]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_stored_state_continues_with_exactly_the_effects_of_the_release_that_stored_it(file: Path) -> None:
    story = stored(file)
    engine = engine_of(story)
    engine.load_state_dict(story["state"])
    for event, effects in zip(story["events"], story["effects"], strict=True):
        assert facts(replay(engine, event)) == without_reasons(effects)
