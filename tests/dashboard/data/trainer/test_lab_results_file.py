"""Results of the trainer's lab, from docs/measurements/ or an uploaded file."""

import contextlib
import json
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.data.trainer.lab_results_file import MAX_LINES, LabResultsError, parse
from tests.dashboard.views.trainer_lab.results import SIZE, SWEEPS, SWITCH, UNSTABLE, WAY, lines


def test_a_loss_that_is_not_finite_survives() -> None:
    (run,) = parse("mine.jsonl", lines(SIZE | {"held_out_loss": "NaN"})).scaling
    assert math.isnan(run.held_out_loss)
    (unstable,) = parse("mine.jsonl", lines(UNSTABLE | {"jumps": [jump(peak="Infinity")]})).unstable
    assert unstable.largest_jump == math.inf


def jump(**changed: object) -> dict[str, object]:
    return {"begin": 1, "end": 2, "level": 1.0, "peak": 2.0, **changed}


BAD: list[tuple[bytes, str]] = [
    (b"", r"^mine\.jsonl: the file is empty"),
    (b"step,loss\n1,2", r"^mine\.jsonl, line 1: it is not a JSON object"),
    (b"\xff\xfe{\x00", r"^mine\.jsonl, line 1: it is not UTF-8"),
    (lines(SWITCH) + b'\n{"a": 1}', r"line 2: it has none of the fields recipe, width"),
    (lines(SWITCH | {"held_out_loss": "many"}), r'held_out_loss is "many", not a number\.$'),
    (lines(SWITCH | {"held_out_loss": 10**400}), r"is an integer beyond any float or counter, not a number"),
    (lines(SWITCH | {"seed": -1}), r"seed is -1, not a whole number from 0 on"),
    (lines(SWITCH | {"recipe": "x" * 101}), r'recipe is "x+\.\.\., not a text of at most 100 letters'),
    (lines({"recipe": "drill"}), r"seed is missing; upload the output"),
    (lines(SIZE | {"parameters": 0}), r"parameters is 0, not a whole number from 1 on"),
    (lines(UNSTABLE | {"jumps": [jump(begin=None)]}), r"begin is null, not a whole number"),
    (lines(SWITCH, SIZE, SWITCH), r"line 3: the run of line 1 again; leave one of the two out"),
    (b"\n" * MAX_LINES + lines(SWITCH), r"line 1001: the page shows at most 1,000 lines"),
    (lines(WAY | {"models": [WAY["models"][0] | {"seed": seed} for seed in range(1001)]}), r"at most 1,000 runs"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_a_file_that_cannot_be_read_gets_one_short_sentence_with_its_line(content: bytes, sentence: str) -> None:
    with pytest.raises(LabResultsError, match=sentence) as raised:
        parse("mine.jsonl", content)
    assert str(raised.value).endswith(".")
    assert len(str(raised.value)) < 250


BOMBS: dict[str, Callable[[], bytes]] = {
    "blank lines": lambda: b"\n" * 8_000_000,
    "deep brackets": lambda: b"[" * 1_000_000,
    "many digits": lambda: b'{"recipe":"a","seed":' + b"9" * 1_000_000 + b"}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_stays_bounded_whatever_is_uploaded(bomb: str) -> None:
    content = BOMBS[bomb]()
    tracemalloc.start()
    try:
        with pytest.raises(LabResultsError, match=r"^mine\.jsonl, line"):
            parse("mine.jsonl", content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.sampled_from(SWEEPS), st.data())
def test_a_result_with_any_field_changed_is_read_or_refused_with_a_sentence(
    result: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(result)))
    content = json.dumps(result | {name: data.draw(anything)}).encode()
    with contextlib.suppress(LabResultsError):
        assert parse("mine.jsonl", content).key
