"""The trainer answers what the collector asks before a person approves a rollback."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lossguard
from lossguard import Guard, Limits
from lossguard.guard import preflight_check
from lossguard.vocabulary.states import OrderMode
from lossguard.vocabulary.wire import Answer, Question
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.scripted import Indices, Memory, ScriptedRun
from tests.waiting import eventually


class AskedRun(ScriptedRun):
    """A run with a question of the collector."""

    def __init__(self, asked: Question | None) -> None:
        super().__init__()
        self.asked = asked
        self.answers: list[Answer] = []

    @property
    def question(self) -> Question | None:
        return self.asked

    def answer_question(self, answer: Answer) -> None:
        self.answers.append(answer)


ASKED = Question(id="7-1", step=2, skip_from=2, skip_to=9)


def answered(run: AskedRun, checkpoints: Memory, batches: Any = None, **options: Any) -> Answer:
    """The only answer of a loop of four steps, at whose third boundary `ASKED` arrives."""
    run.asked = None
    guard = Guard(run, checkpoints=checkpoints, every=2, **options)
    for step, _ in guard.steps(Indices() if batches is None else batches, 4):
        run.asked = ASKED if step >= 2 else None
    assert eventually(lambda: bool(run.answers))
    assert len(run.answers) == 1
    return run.answers[0]


def test_a_checkpoint_that_is_there_is_said_to_be_and_each_question_is_answered_once() -> None:
    assert answered(AskedRun(ASKED), Memory([])) == Answer(id="7-1", tier="disk")


def test_a_checkpoint_that_is_gone_is_said_to_be_and_the_list_is_reported_anew() -> None:
    class Losing(Memory):
        def save(self, step: int, state: dict[str, Any]) -> None:
            super().save(step, state)
            self.saved.pop(2, None)

    answer = answered(AskedRun(ASKED), Losing([]))
    assert (answer.problem, answer.tier) == ("it is no longer there", None)


def test_a_store_of_the_loop_may_look_itself_and_may_raise() -> None:
    class Checked(Memory):
        def check(self, step: int) -> str | None:
            raise OSError(f"no answer about {step}")

    assert answered(AskedRun(ASKED), Checked([])).problem == "it cannot be looked at (OSError: no answer about 2)"


def test_a_trainer_says_that_its_limits_would_refuse_the_order() -> None:
    refused = answered(AskedRun(ASKED), Memory([]), limits=Limits(max_skip=3)).refused
    assert refused == "it skips 7 batches, and max_skip=3"
    assert "mode=observe" in answered(AskedRun(ASKED), Memory([]), limits=Limits(mode=OrderMode.OBSERVE)).refused
    assert answered(AskedRun(ASKED), Memory([]), limits=Limits(mode=OrderMode.APPROVE)).refused == ""


def test_a_decoder_shows_the_first_batches_that_are_skipped() -> None:
    answer = answered(AskedRun(ASKED), Memory([]), decode=lambda batch: f"batch {batch}\0")
    assert answer.texts == ((2, "batch 2\u2400"), (3, "batch 3\u2400"), (4, "batch 4\u2400"))


def noting(seen: list[int]) -> Callable[[int], str]:
    """A decoder that notes the batches it was given."""

    def decode(batch: int) -> str:
        seen.append(batch)
        return str(batch)

    return decode


def test_no_text_is_read_for_an_order_that_would_be_refused() -> None:
    seen: list[int] = []
    for limits in (Limits(mode=OrderMode.OBSERVE), Limits(max_skip=3)):
        answer = answered(AskedRun(ASKED), Memory([]), limits=limits, decode=noting(seen))
        assert answer.refused
        assert (answer.texts, seen) == ((), [])


def is_idle(guard: Guard) -> bool:
    """Whether the guard looks at no checkpoint."""
    return guard.preflight._thread is None or not guard.preflight._thread.is_alive()


def test_a_collector_cannot_ask_for_one_batch_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    run = AskedRun(None)
    guard = Guard(run, checkpoints=Memory([]), every=2, decode=noting(seen))
    for step, _ in guard.steps(Indices(), 40):
        if step >= 2:
            assert eventually(lambda: is_idle(guard))  # else it passes over the question, which the next one replaces
            run.asked = Question(id=f"{step}-1", step=2, skip_from=step, skip_to=step + 100)
            assert eventually(lambda: len(run.answers) >= step - 2)  # noqa: B023 - it is called at once
    assert eventually(lambda: len(run.answers) >= 37)
    assert len(seen) == 3
    monkeypatch.setattr(preflight_check, "TEXT_SECONDS", 0.0)
    guard = Guard(run, checkpoints=Memory([]), every=2, decode=noting(seen))
    for step, _ in guard.steps(Indices(), 4):
        assert eventually(lambda: is_idle(guard))
        run.asked = Question(id=f"again {step}", step=0, skip_from=step, skip_to=step + 100)
    assert len(seen) == 3 * 5


def test_a_decoder_that_raises_never_reaches_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    def decode(batch: int) -> str:
        if batch == 4:
            raise RuntimeError("no such token")
        return str(batch)

    with caplog.at_level(logging.WARNING, "lossguard"):
        answer = answered(AskedRun(ASKED), Memory([]), decode=decode)
    assert (answer.problem, answer.texts) == ("", ((2, "2"), (3, "3")))
    assert "decode raised" in caplog.text


def test_batches_that_cannot_be_read_out_of_turn_are_not_read() -> None:
    seen: list[int] = []
    assert answered(AskedRun(ASKED), Memory([]), iter(range(99)), decode=seen.append).texts == ()
    assert seen == []


@pytest.mark.slow
def test_an_answer_goes_to_the_collector(collector: FakeCollector, tmp_path: Path) -> None:
    collector.question = {"id": "7-1", "step": 0, "skip_from": 0, "skip_to": 2}
    with lossguard.init("project", run_id="r", url=collector.url, directory=tmp_path) as run:
        guard = Guard(run, checkpoints=Memory([]), every=2, decode=str)
        for step, _ in guard.steps(Indices(), 4):
            run.log(step, loss=1.0)
            assert step or eventually(lambda: run.question is not None)
            assert step < 3 or eventually(lambda: is_idle(guard))
    assert "preflight" in collector.runs["r"]["capabilities"]
    assert collector.restorable == [0, 2, 4]
    texts = [{"batch": 0, "text": "0"}, {"batch": 1, "text": "1"}]
    answer = {"id": "7-1", "problem": "", "tier": "disk", "refused": "", "texts": texts}
    assert collector.preflights == [answer]
