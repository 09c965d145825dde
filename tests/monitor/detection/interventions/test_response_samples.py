"""What the detection does once it knows that a skip left no samples out, or that skipped ones came again."""

import json
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.protocol import DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.states import IncidentKind, OrderKind, Outcome
from monitor.detection import DetectionEngine, Effect, Incident, Intervention, Policy, Rows
from tests.monitor.detection.loops import Loop
from tests.monitor.detection.runs import EffectLog, Trainer, healthy, reloaded, rows_of

AUTO = Policy(mode="auto")  # type: ignore[arg-type]
APPROVE = Policy(mode="approve")  # type: ignore[arg-type]
MENDING = "let guard.steps(..) read the batches, from the DataLoader or from lossguard.torch.Drawn(get_batch)"


def bad(sample: int) -> bool:
    """One in a hundred, from the 300th on."""
    return sample >= 300 and sample % 100 == 0


def looped(draws: str, policy: Policy = AUTO, **options: Any) -> tuple[Loop, EffectLog]:
    remedies = options.pop("remedies", ())
    loop = Loop(DetectionEngine(policy=policy, remedies=remedies), bad, draws=draws, **options)
    return loop, loop.run()


def mismatch(log: EffectLog) -> Incident:
    return next(each for each in log.incidents if each.kind is IncidentKind.REPLAY_MISMATCH)


def skips(each: Intervention) -> bool:
    return each.skip_from is not None


# Loops that draw their batches by themselves


@pytest.mark.parametrize("value", [1.5, float("nan")])
@pytest.mark.parametrize(("draws", "policy"), [("rewound", "adaptive"), ("rewound", "palm"), ("fresh", "adaptive")])
def test_a_loop_that_draws_its_batches_by_itself_is_skipped_once_and_then_held(
    draws: str, policy: str, value: float
) -> None:
    loop, log = looped(draws, Policy(mode="auto", name=policy), value=value)  # type: ignore[arg-type]
    assert [each.kind for each in log.interventions] == [OrderKind.ROLLBACK, OrderKind.HOLD]
    assert "The data of this run does not repeat, so no batch can be left out" in log.interventions[1].reasons[-1]
    assert mismatch(log).reasons[-1].endswith(f"To mend it, {MENDING}.")
    assert [notice.text.endswith(MENDING) for notice in loop.engine.incidents.notices()] == [True]


@pytest.mark.parametrize("draws", ["rewound", "fresh"])
def test_such_a_loop_is_rewound_only_with_a_remedy(draws: str) -> None:
    _, log = looped(draws, remedies=("learning_rate", "z_loss"))
    first, *others = log.interventions
    assert (first.kind, skips(first), first.remedies) == (OrderKind.ROLLBACK, True, [])
    assert others
    for each in others:
        assert not skips(each)
        assert each.kind is OrderKind.HOLD or each.remedies


def test_where_the_policy_does_not_hold_such_a_loop_goes_on_without_an_order() -> None:
    policy = Policy(mode="auto", when_structural="continue")  # type: ignore[arg-type]
    _, log = looped("rewound", policy)
    assert [each.kind for each in log.interventions] == [OrderKind.ROLLBACK]
    assert any("the run goes on" in reason for reason in log.incidents[2].reasons)


def test_the_samples_of_a_batch_index_are_left_out_and_nothing_else_is_said() -> None:
    loop, log = looped("indexed")
    assert {each.state.value for each in log.interventions} <= {"verified", "applied"}
    assert {each.kind for each in log.incidents} == {IncidentKind.LOSS_SPIKE}
    trained = list(filter(bad, loop.trained))
    assert len(trained) == len(set(trained)) == len(log.incidents)


def test_a_rollback_whose_skipped_samples_came_again_has_recurred_with_that_reason() -> None:
    _, log = looped("rewound")
    assert log.interventions[0].reasons[-1] == "Skipped samples were trained again."
    assert (log.incidents[0].outcome, log.incidents[0].reasons[-1]) == (
        Outcome.ONGOING,
        "Skipped samples were trained again.",
    )
    assert "steps 299 to 300 gave the losses that are recorded with these batches" in mismatch(log).reasons[0]


def test_that_the_data_does_not_repeat_is_stored_until_a_person_accepts_the_replay() -> None:
    loop, _ = looped("fresh")
    engine = reloaded(loop.engine)
    assert engine.state_dict() == loop.engine.state_dict()
    assert not engine.can_skip
    with pytest.raises(ValueError, match="the data of this run does not repeat: order the rollback without"):
        engine.rollback(rewind_to=300, skip_from=300, skip_to=310)
    engine.accept_replay()
    assert engine.can_skip
    assert engine.incidents.notices() == []


def test_a_person_may_say_that_the_data_repeats_again_after_a_rewind_has_ended_the_incident() -> None:
    engine, log = under_verification()
    log.add(engine.declare(320, DATA_NOT_REPEATED, {"step": 312, "batch_index": 366}))
    log.add(engine.fork(250, "rewind", [], None))
    assert mismatch(log).state == "closed"
    assert not engine.can_skip
    assert engine.accept_replay() == []
    assert engine.can_skip
    with pytest.raises(ValueError, match="no replay mismatch is open"):
        engine.accept_replay()


@cache
def rewound() -> tuple[str, Rows]:
    """A stored state after a rollback to step 280, and the rows after it: the same losses on other batches."""
    columns = healthy(340) | {"batch_index": np.arange(340, dtype=float)}
    columns["loss"][300:] += 1.5
    rows, engine, log = rows_of(columns), DetectionEngine(policy=AUTO), EffectLog()
    for part in [rows[:300], *rows[300:].split(1)]:
        log.add([] if log.interventions else engine.feed(part, restorable=range(0, int(part.steps[-1]), 10)))
    (order,) = log.interventions
    to, first, end = order.rewind_to or 0, order.skip_from or 0, order.skip_to or 0
    engine.fork(to, "rollback", [rows[:to]], None, obeyed=1, recorded=rows[to:])
    batches = np.where(rows.steps >= first, rows.steps + end - first, rows.steps)
    return json.dumps(engine.state_dict(), allow_nan=False), rows_of(columns | {"batch_index": batches})[to:]


def loaded(state: str) -> DetectionEngine:
    engine = DetectionEngine(policy=AUTO)
    engine.load_state_dict(json.loads(state))
    return engine


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.integers(1, 40), max_size=6), st.integers(0, 40))
def test_what_is_found_does_not_depend_on_how_rows_are_grouped(cuts: list[int], saved: int) -> None:
    state, rows = rewound()
    whole, engine = loaded(state), loaded(state)
    expected, effects = whole.feed(rows), list[Effect]()
    for first, end in pairwise(sorted({0, min(saved, len(rows)), *(min(cut, len(rows)) for cut in cuts), len(rows)})):
        if first == saved:
            engine = loaded(json.dumps(engine.state_dict(), allow_nan=False))
        effects += engine.feed(rows[first:end])
    assert repr(effects) == repr(expected)
    assert engine.state_dict() == whole.state_dict()
    assert engine.incidents.notices() == whole.incidents.notices() != []


# What the trainer says of its samples


def under_verification(policy: Policy = AUTO, **options: Any) -> tuple[DetectionEngine, EffectLog]:
    """A rollback that skipped batches was carried out, and trains on."""
    engine = DetectionEngine(policy=policy)
    trainer = Trainer(engine, bad={300}, steps=345, **options)
    log = trainer.run()
    assert [each.state.value for each in log.interventions] == ["applied"]
    return engine, log


def test_a_skipped_sample_that_is_trained_again_makes_its_rollback_recur() -> None:
    engine, log = under_verification(compared=True)
    details = {"step": 340, "batch_index": 402, "rows": 3, "order": 17, "intervention": 1}
    log.add(engine.declare(340, SKIPPED_SAMPLE_RETURNED, details))
    (rollback,), (incident,) = log.interventions, log.incidents
    assert rollback.state == "recurred"
    assert rollback.reasons[-1] == (
        "Skipped samples were trained again at step 340 (3 rows of batch 402): the rollback did not leave them out."
    )
    assert (incident.state, incident.outcome) == ("closed", Outcome.ONGOING)
    assert engine.can_skip
    assert [each.number for each in engine.interventions.attempts_at(300, 300)] == [1]


@pytest.mark.parametrize("returned", [True, False])
def test_trouble_elsewhere_is_decided_about_once_the_trainer_has_compared_the_samples_of_its_step(
    returned: bool,
) -> None:
    engine, log = under_verification(compared=True)
    nan = Rows.of([345, 346], loss=[float("nan")] * 2, batch_index=[407, 408])
    log.add(engine.feed(nan[:1]))
    assert [each.state.value for each in log.interventions] == ["applied"]
    log.add(engine.declare(346, SKIPPED_SAMPLE_RETURNED, {"intervention": 1}) if returned else [])
    log.add(engine.feed(nan[1:]))
    states = [each.state.value for each in log.interventions]
    assert states == ["recurred" if returned else "verified", "ordered"]


def test_a_loss_that_is_not_finite_at_one_row_alone_is_answered_once_the_samples_are_compared() -> None:
    engine, log = under_verification(compared=True)
    log.add(engine.feed(Rows.of([345], loss=[float("nan")], batch_index=[407])))
    assert len(log.interventions) == 1
    log.add(engine.feed(Rows.of([346], loss=[2.2], batch_index=[408])))
    assert [each.state.value for each in log.interventions] == ["verified", "ordered"]
    assert log.interventions[1].decided_step == 346
    assert "A signal is not finite" in log.interventions[1].reasons[0]


@pytest.mark.parametrize("details", [{}, {"step": "x", "rows": -1, "batch_index": None}])
def test_a_sample_of_an_order_that_is_not_named_is_one_of_the_rollback_under_verification(details: Any) -> None:
    engine, log = under_verification()
    log.add(engine.declare(340, SKIPPED_SAMPLE_RETURNED, details))
    assert log.interventions[0].state == "recurred"


def test_a_sample_of_another_site_or_without_a_rollback_under_verification_changes_nothing() -> None:
    engine, log = under_verification()
    for number in (7, [1], "1"):
        assert engine.declare(340, SKIPPED_SAMPLE_RETURNED, {"intervention": number}) == []
    assert engine.declare(340, DATA_NOT_REPEATED) != []
    fresh = DetectionEngine()
    assert fresh.declare(3, SKIPPED_SAMPLE_RETURNED, {"rows": 1}) == []
    assert log.interventions[0].state == "applied"


def test_data_that_the_trainer_has_seen_not_to_repeat_ends_all_skips() -> None:
    engine, log = under_verification()
    log.add(engine.declare(320, DATA_NOT_REPEATED, {"step": 312, "batch_index": 366}))
    incident = mismatch(log)
    assert (incident.state, incident.onset_step, incident.signal) == ("open", 312, "batch_index")
    assert incident.reasons == [
        "Batch 366 came with other samples at step 312 than before: the trainer compared them.",
        f"The data of this run does not repeat, so no batch is skipped from now on. To mend it, {MENDING}.",
    ]
    assert not engine.can_skip


def test_a_skip_that_waits_for_approval_is_withdrawn_when_the_data_does_not_repeat() -> None:
    engine, log = DetectionEngine(policy=APPROVE), EffectLog()
    columns = healthy(360)
    columns["loss"][300:] += 1.5
    log.add(engine.feed(rows_of(columns), restorable=range(0, 360, 10)))
    assert [(each.state.value, skips(each)) for each in log.interventions] == [("proposed", True)]
    log.add(engine.declare(360, DATA_NOT_REPEATED))
    more = healthy(370)
    more["loss"][300:] += 1.5
    log.add(engine.feed(rows_of(more)[360:]))
    assert [(each.kind.value, each.state.value) for each in log.interventions] == [
        ("rollback", "withdrawn"),
        ("hold", "proposed"),
    ]
