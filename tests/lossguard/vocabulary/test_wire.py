from typing import Any

import pytest

from lossguard.vocabulary.wire import MAX_CHARACTERS, MAX_SENTENCE, Answer, Question


def question(**fields: Any) -> Question | None:
    return Question.from_wire({"id": "7-1", "step": 40, "skip_from": 40, "skip_to": 52, "lr_scale": None} | fields)


def test_a_question_names_the_order_that_an_approval_would_make() -> None:
    asked = question(lr_scale=0.5, unknown="of a later release")
    assert asked is not None
    order = asked.as_order()
    assert (order.rewind_to, order.skip_from, order.skip_to, order.lr_scale) == (40, 40, 52, 0.5)
    assert order.approved_by


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
