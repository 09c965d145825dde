import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossguard
from lossguard.vocabulary.states import Arm
from lossguard.vocabulary.wire import (
    MAX_CHARACTERS,
    MAX_NOTICE,
    MAX_SENTENCE,
    Answer,
    ArmResult,
    ArmsTried,
    Notice,
    Probe,
    Question,
)


def question(**fields: Any) -> Question | None:
    return Question.from_wire({"id": "7-1", "step": 40, "skip_from": 40, "skip_to": 52, "lr_scale": None} | fields)


def test_a_question_names_the_order_that_an_approval_would_make() -> None:
    asked = question(lr_scale=0.5, unknown="of a later release")
    assert asked is not None
    order = asked.as_order()
    assert (order.rewind_to, order.skip_from, order.skip_to, order.lr_scale) == (40, 40, 52, 0.5)
    assert order.approved_by


@pytest.mark.parametrize("text", ["One sentence.", "x" * (2 * MAX_NOTICE)])
def test_a_notice_comes_back_from_the_wire_with_a_bounded_text(text: str) -> None:
    sent = json.loads(json.dumps({"notices": [Notice(key="1", text=text).to_wire()]}))
    assert Notice.all_in(sent) == [Notice(key="1", text=text[:MAX_NOTICE])]


@pytest.mark.parametrize("fields", [{"id": 7}, {"step": None}, {"step": "40"}, {"skip_to": 1.5}])
def test_what_is_no_question_is_ignored(fields: dict[str, Any]) -> None:
    assert question(**fields) is None
    assert Question.from_wire(None) is None
    assert Question.from_wire([]) is None


def test_texts_are_of_the_first_batches_that_are_skipped() -> None:
    assert question() is not None
    assert list(question().batches()) == [40, 41, 42]  # type: ignore[union-attr]
    assert list(question(skip_to=41).batches()) == [40]  # type: ignore[union-attr]
    assert list(question(skip_from=None, skip_to=None).batches()) == []  # type: ignore[union-attr]


def test_an_answer_is_bounded() -> None:
    wire = Answer(id="7-1", problem="x" * 9999, refused="y" * 9999, texts=((40, "z" * 9999),)).to_wire()
    assert (len(wire["problem"]), len(wire["refused"])) == (MAX_SENTENCE, MAX_SENTENCE)
    assert wire["texts"] == [{"batch": 40, "text": "z" * MAX_CHARACTERS}]


HALVES: dict[str, Any] = {"tokens": ["a", "b"], "log_probabilities": [math.log(0.5)] * 2}


def _events(folder: Path) -> list[dict[str, Any]]:
    (spool,) = folder.glob("*/r/*.spool")
    return [line for line in map(json.loads, spool.read_text().splitlines()) if "event" in line]


@given(
    st.lists(st.tuples(st.text(max_size=5), st.floats()), min_size=1, max_size=256),
    st.text(max_size=9),
    st.sampled_from([None, 0.0, math.log(4), math.nan]),
)
def test_a_probe_survives_json_unchanged(tokens: list[tuple[str, float]], prompt: str, entropy: float | None) -> None:
    names, values = zip(*tokens, strict=True)
    rest: Any = {"rest_count": 3, "rest_log_probability": values[0], "entropy": entropy}
    probe = Probe(prompt=prompt, tokens=names, log_probabilities=values, **rest)
    back = Probe.from_details(json.loads(json.dumps(probe.to_details(), allow_nan=False)))
    assert repr(back) == repr(probe)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokens": []}, "a probe names 1 to 256 tokens, not 0"),
        ({"tokens": ["a"] * 257}, "a probe names 1 to 256 tokens, not 257"),
        ({"log_probabilities": [0.0]}, "2 tokens have 1 log probabilities"),
        ({"log_probabilities": [0.0, None]}, "a log probability is missing"),
        ({"log_probabilities": [0.0, "much"]}, "'much' is not a number"),
        ({"tokens": ["a", 3]}, "3 is not a text"),
        ({"prompt": "x" * 1001}, "at most 1000 characters"),
        ({"target": "a"}, "a target and its log probability go together"),
        ({"rest": {"count": 2, "log_probability": None}}, "the rest has a log probability exactly when"),
        ({"rest": {"count": "2", "log_probability": 0.0}}, "'2' is not a count"),
        ({"rest": {}}, "'count' is missing in a probe"),
        ({"rest": 3}, "not the form of a probe"),
    ],
)
def test_what_is_no_probe_is_refused_in_a_sentence(change: dict[str, Any], sentence: str) -> None:
    details = Probe(prompt="p", tokens=("a", "b"), log_probabilities=(-0.5, -1.0)).to_details()
    with pytest.raises(ValueError, match=sentence):
        Probe.from_details(details | change)


def test_a_run_records_a_probe_at_its_step_and_on_the_segment_of_that_step(tmp_path: Path) -> None:
    with lossguard.init("p", run_id="r", mode="offline", directory=tmp_path) as run:
        run.probe(0, "early", **HALVES)  # before the first step: kept until there is a segment
        run.log(4, loss=1.0)
        run.probe(4, "def\0 \ud800", **HALVES, target="b", target_log_probability=math.nan)
    early, late = _events(tmp_path)
    assert (early["event"], early["step"], early["details"]["prompt"]) == ("probe", 0, "early")
    assert (late["step"], late["details"]["prompt"]) == (4, "def\u2400 ?")
    assert late["details"]["target_log_probability"] == "NaN"
    assert late["details"]["rest"] == {"count": 0, "log_probability": None}


def test_a_probe_that_cannot_be_recorded_is_reported_and_never_raised(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with lossguard.init("p", run_id="r", mode="offline", directory=tmp_path) as run:
        run.probe(0, "x", tokens=["a"], log_probabilities=[0.0, 1.0])
        run.probe(-1, "x", **HALVES)
        run.probe(0, 3, tokens=["a"], log_probabilities=["b"])  # type: ignore[arg-type, list-item]
        run.probe(1, "x", **HALVES)
        run.log(1, loss=1.0)
    assert [event["step"] for event in _events(tmp_path)] == [1]


def test_a_probe_without_an_entropy_has_the_form_that_earlier_releases_wrote_and_read() -> None:
    details = Probe(prompt="p", tokens=("a", "b"), log_probabilities=(-0.5, -1.0)).to_details()
    assert "entropy" not in details
    assert Probe.from_details(details).entropy is None


@pytest.mark.parametrize("entropy", [-0.1, 0.7, 1e308, math.inf])
def test_an_entropy_that_two_tokens_cannot_have_is_refused(entropy: float) -> None:
    with pytest.raises(ValueError, match=r"an entropy lies between 0 and 0\.693 nats"):
        Probe(prompt="p", tokens=("a", "b"), log_probabilities=(-0.7, -0.7), entropy=entropy)


def arms(**changes: Any) -> dict[str, Any]:
    results = tuple(
        ArmResult(arm=arm, steps=75, loss=math.inf, difference=math.nan, error=0.1, got_past=False, remedy=remedy)
        for arm, remedy in ((Arm.WAIT, None), (Arm.REWIND_WITH_REMEDY, "clip"))
    )
    return ArmsTried(order=3, rewind_to=40, tier="disk", window=75, results=results).to_details() | changes


def test_arms_come_back_from_json_with_what_is_not_finite() -> None:
    found = ArmsTried.from_details(json.loads(json.dumps(arms(), allow_nan=False)))
    assert found.to_details() == arms()
    assert math.isinf(found.results[0].loss)
    assert math.isnan(found.results[0].difference)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: wrong} for name in ("order", "rewind_to", "window") for wrong in (-1, 1.5, True, None)),
        *({"arms": wrong} for wrong in ([], {"a": 1}, [1], None, [*arms()["arms"], arms()["arms"][0]])),
        *({"arms": [arms()["arms"][0] | wrong]} for wrong in ({"loss": None}, {"loss": "x"}, {"got_past": 1})),
        *({"arms": [arms()["arms"][0] | wrong]} for wrong in ({"arm": "hope"}, {"remedy": "A b"}, {"steps": -1})),
        {"tier": "No Tier"},
    ],
)
def test_malformed_arms_are_no_arms(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ArmsTried.from_details(arms(**changes))


@pytest.mark.parametrize("missing", ["order", "tier", "arms"])
def test_arms_need_all_their_fields(missing: str) -> None:
    with pytest.raises(ValueError, match=f"'{missing}' is missing in arms"):
        ArmsTried.from_details({name: value for name, value in arms().items() if name != missing})
