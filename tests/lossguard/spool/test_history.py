import time
from pathlib import Path

import pytest

import lossguard
from lossguard.vocabulary.states import SegmentReason
from tests.lossguard.recorded import offline, records, steps
from tests.lossguard.scripted import rollback


def test_a_run_resumed_while_the_clock_is_behind_continues_after_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segment was opened "before" the one that it resumes: it was stored, and never judged."""
    real, real_ns = time.time, time.time_ns
    for hours_behind in range(3):
        monkeypatch.setattr(time, "time", lambda behind=3600 * hours_behind: real() - behind)
        monkeypatch.setattr(time, "time_ns", lambda behind=3600 * 10**9 * hours_behind: real_ns() - behind)
        with offline(tmp_path, run_id="r") as run:
            run.log(hours_behind, loss=1.0)
            run.log(0, loss=1.0)
    assert [step for step, _ in steps(run)] == [0, 0, 1, 0, 2, 0]
    opened = [record["time"] for record in records(run) if "segment" in record]
    assert opened == sorted(set(opened))


def test_an_answered_order_is_remembered_by_the_next_session(tmp_path: Path) -> None:
    applied = {"rewound_to": 50, "skip_from": 60, "skip_to": 90, "lr_scale": 0.5, "reason": "spike"}
    with offline(tmp_path, run_id="r") as run:
        run.open_segment(0, SegmentReason.START)
        run.refuse(rollback(1), "no checkpoint")
        run.open_segment(50, SegmentReason.ROLLBACK, rollback(2), applied)
    with offline(tmp_path, run_id="r") as run:
        assert run.history.answered == {"k1", "k2"}
        assert run.history.skips == [lossguard.Skip(60, 90, "spike")]
        assert run.history.lr_scale == 0.5
        times = [line["time"] for line in records(run) if line.get("reason") == "rollback"]
        assert run.history.rollback_times == times


def test_an_order_with_a_key_of_its_own_is_new_though_its_id_was_answered(tmp_path: Path) -> None:
    """A store that was rebuilt counts its orders from 1 again."""
    a, b, c = rollback(1, key="a"), rollback(1, key="b"), rollback(3, key="c")
    with offline(tmp_path, run_id="r") as run:
        run.open_segment(0, SegmentReason.START)
        run.accept(a)
        run.open_segment(50, SegmentReason.ROLLBACK, c, {"rewound_to": 50})
    with offline(tmp_path, run_id="r") as run:
        assert run.history.answered == {"a", "c"}
        run.inbox.receive([a, c, b, b])  # type: ignore[attr-defined]
        assert [run.take_order(), run.take_order()] == [b, None]


def test_a_damaged_line_is_no_part_of_the_history_and_an_answer_behind_a_lost_newline_is(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
        run.refuse(rollback(1), "no checkpoint")
        run.refuse(rollback(2), "no checkpoint")
    (spool,) = tmp_path.rglob("*.spool")
    damaged = spool.read_bytes().replace(b'}\n{"answer":1', b'}{"answer":1').replace(b'"answer":2', b'"answer":3')
    spool.write_bytes(damaged + b'{"answer":4,')
    assert [record["answer"] for _, record in lossguard.read_spools(spool.parent) if "answer" in record] == [1]
    with offline(tmp_path, run_id="r") as run:
        assert run.history.answered == {"k1"}


def test_the_records_of_all_sessions_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    for first in (0, 2):
        with lossguard.init("p", run_id="r", mode="offline", directory=tmp_path) as run:
            for step in (first, first + 1):
                run.log(step, loss=float(step))
            run.declare("data_mix", name="code")
    assert run.directory is not None
    records = list(lossguard.read_spools(run.directory))
    assert [record["step"] for _, record in records if "metrics" in record] == [0, 1, 2, 3]
    assert len({session for session, _ in records}) == 2
    kinds = ("run", "segment", "metrics", "event", "finish")
    found = [next(kind for kind in kinds if kind in record) for _, record in records]
    assert found == ["run", "segment", "metrics", "metrics", "event", "finish"] * 2
