import inspect
import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossguard.launch.hooks import tracker_log
from lossguard.launch.hooks.journal import Journal
from lossguard.launch.hooks.tracker_log import TrackerLog, number, numbers, observed, recording, whole

Entries = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (0.5, 0.5),
        (True, 1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([2.0]), 2.0),
        (np.array([1.0, 2.0]), None),
        ("text", None),
        (None, None),
        (object(), None),
        (Fraction(1, 2), None),
        (np.complex64(1j), None),
    ],
)
def test_what_is_a_scalar_is_a_number(value: Any, expected: float | None) -> None:
    assert number(value) == expected


def test_names_of_nested_mappings_are_joined_by_dots() -> None:
    data = {"a": 1, "b": {"c": 2.0, "d": {"e": 3.0}}, "f": "text", "g": [1]}
    assert numbers(data) == {"a": 1, "b.c": 2.0, "b.d.e": 3.0}


@pytest.mark.parametrize(("value", "step"), [(3, 3), (3.0, 3), (np.int32(3), 3), (3.5, None), (-1, None), ("3", None)])
def test_a_step_is_a_whole_number(value: Any, step: int | None) -> None:
    assert whole(value) == step


@pytest.mark.slow
@given(
    st.lists(st.dictionaries(st.text(min_size=1), st.floats() | st.integers(-(2**70), 2**70), min_size=1), min_size=1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_every_line_says_what_was_logged(rows: list[dict[str, float]]) -> None:
    lines: list[str] = []

    class Kept(Journal):
        def write_text(self, text: str) -> None:
            lines.append(text)

    tracker_log._owners.clear()
    log = TrackerLog("wandb", Kept("none"))
    for step, row in enumerate(rows * 2):
        log.scalars(step, row)
    written = [json.loads(line)["values"] for line in lines]
    for found, expected in zip(written, rows * 2, strict=True):
        assert list(found) == list(expected)
        pairs = zip(found.values(), expected.values(), strict=True)
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def test_a_scalar_of_two_trackers_is_recorded_from_the_first_one(journal: Journal, entries: Entries) -> None:
    first, second = TrackerLog("wandb", journal), TrackerLog("tensorboard", journal, source="tensorboard:out")
    for step in range(2):
        first.scalars(step, {"loss": 1.0})
        second.scalars(step, {"loss": 1.0, "lr": 0.5})
    assert [(entry["tracker"], entry["values"]) for entry in entries()] == [
        ("wandb", {"loss": 1.0}),
        ("tensorboard", {"lr": 0.5}),
    ] * 2


def test_the_same_tag_of_two_folders_has_the_folder_in_its_name(journal: Journal, entries: Entries) -> None:
    train = TrackerLog("tensorboard", journal, source="tensorboard:runs/train")
    held_out = TrackerLog("tensorboard", journal, source="tensorboard:runs/val")
    for step in range(2):
        train.scalars(step, {"loss": 1.0})
        held_out.scalars(step, {"loss": 2.0})
    assert [entry["values"] for entry in entries()] == [{"loss": 1.0}, {"val/loss": 2.0}] * 2


def test_a_hooked_function_behaves_as_before_whatever_the_hook_does(capsys: pytest.CaptureFixture[str]) -> None:
    def log(data: dict[str, float], step: int | None = None) -> int:
        """The tracker's own."""
        if step == 1:
            raise KeyError("the tracker's own error")
        return len(data)

    def fails(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("ours")

    hooked = recording(log, fails)
    assert hooked({"a": 1.0}) == 1
    with pytest.raises(KeyError, match="the tracker's own error"):
        hooked({"a": 1.0}, step=1)
    assert (hooked.__doc__, inspect.signature(hooked)) == (log.__doc__, inspect.signature(log))
    assert capsys.readouterr().err.count("was not recorded (RuntimeError: ours)") == 1


@pytest.mark.parametrize("hooks", [recording, observed])
def test_an_argument_of_a_hooked_function_may_have_any_name(hooks: Any) -> None:
    seen: list[dict[str, int]] = []
    assert hooks(lambda **named: named, lambda *_, **named: seen.append(named))(original=1, ours=2) == seen[0]
