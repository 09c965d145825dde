"""One of several collectors leads; another one takes over when it fails, and a leader without its lease stops."""

import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.store import leader
from db.store.engine import writing
from db.store.leader import Lease
from monitor.leader import leadership as leadership_module
from monitor.leader.background import Background, MayGoOn
from monitor.leader.leadership import ROLE, Leadership
from tests.waiting import eventually, wait_for


def leadership(engine: sa.Engine, seen: list[Lease]) -> Leadership:
    return Leadership(engine, lambda lease, _: seen.append(lease), lease_seconds=60.0, beat_seconds=0.01)


def run_out(engine: sa.Engine, ago: float = 1.0) -> None:
    """The lease ran out `ago` seconds ago."""
    with writing(engine) as session:
        session.execute(sa.update(leader.Leader).values(until=leader.now(session) - ago))


def test_one_of_two_collectors_leads_and_its_term_stays(engine: sa.Engine) -> None:
    seen: list[Lease] = []
    first, second = leadership(engine, seen), leadership(engine, [])
    for _ in range(3):
        first.beat()
        second.beat()
    assert (first.is_leader, second.is_leader) == (True, False)
    assert [lease.term for lease in seen] == [1, 1, 1]


def test_another_collector_takes_over_once_the_lease_has_run_out_and_the_old_one_follows(engine: sa.Engine) -> None:
    seen: list[Lease] = []
    first, second = leadership(engine, []), leadership(engine, seen)
    first.beat()
    run_out(engine)
    second.beat()
    first.beat()
    assert (first.is_leader, second.is_leader) == (False, True)
    assert [lease.term for lease in seen] == [2]


def test_a_leader_that_comes_back_after_its_lease_ran_out_has_a_new_term(engine: sa.Engine) -> None:
    seen: list[Lease] = []
    only = leadership(engine, seen)
    only.beat()
    run_out(engine)
    only.beat()
    assert [lease.term for lease in seen] == [1, 2]
    with writing(engine) as session:
        assert [leader.holds(session, lease) for lease in seen] == [False, True]


def test_a_leader_that_stops_is_replaced_at_once(engine: sa.Engine) -> None:
    first, second = leadership(engine, []), leadership(engine, [])
    first.beat()
    first.stop()
    second.beat()
    assert second.is_leader


def test_a_leader_whose_work_fails_leaves_the_role_to_another(sqlite_engine: sa.Engine) -> None:
    def fail(lease: Lease, may_go_on: MayGoOn) -> None:
        raise RuntimeError("a defect")

    broken, second = Leadership(sqlite_engine, fail), leadership(sqlite_engine, [])
    broken.beat()
    second.beat()
    assert (broken.is_leader, second.is_leader) == (False, True)


def test_a_leader_that_cannot_renew_stops_by_itself(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(leadership_module, "time", SimpleNamespace(monotonic=lambda: passed[0], time=time.time))
    only = leadership(sqlite_engine, [])
    only.beat()
    assert only.is_leader

    def away(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("the database is away"))

    monkeypatch.setattr(leader, "claim", away)
    passed[0] = 60.0
    only.beat()
    assert not only.is_leader


def test_a_beat_ends_early_once_half_of_the_lease_has_passed_so_that_the_term_stays(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, answers = [0.0], []
    monkeypatch.setattr(leadership_module, "time", SimpleNamespace(monotonic=lambda: passed[0], time=time.time))

    def work(lease: Lease, may_go_on: MayGoOn) -> None:
        for seconds in (0.0, 29.0, 2.0):
            passed[0] += seconds
            answers.append(may_go_on())

    only = Leadership(sqlite_engine, work, lease_seconds=60.0)
    only.beat()
    assert answers == [True, True, False]
    assert only.is_leader


def test_a_leader_that_waited_for_another_writer_has_its_whole_lease(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [0.0]
    monkeypatch.setattr(leadership_module, "time", SimpleNamespace(monotonic=lambda: passed[0], time=time.time))

    def wait(connection: sa.Connection) -> None:
        passed[0] += 61.0

    only = leadership(sqlite_engine, [])
    sa.event.listen(sqlite_engine, "begin", wait)
    only.beat()
    assert only.is_leader


def test_a_leader_that_stops_waits_for_its_work_in_the_background(sqlite_engine: sa.Engine) -> None:
    begun, ended = threading.Event(), []

    def work(lease: Lease, may_go_on: MayGoOn) -> None:
        begun.set()
        wait_for(lambda: not may_go_on(), seconds=60, what="the collector stops")
        ended.append(lease)

    only = Leadership(sqlite_engine, lambda lease, _: None, in_background=[Background("test", work)])
    only.beat()
    assert begun.wait(60.0)
    only.stop()
    assert len(ended) == 1


@pytest.mark.parametrize(("ago", "is_break"), [(1.0, False), (60.0, True)])
def test_a_silence_counts_from_the_last_time_without_any_leader(engine: sa.Engine, ago: float, is_break: bool) -> None:
    seen: list[Lease] = []
    first, second = leadership(engine, seen), leadership(engine, seen)
    first.beat()
    with writing(engine) as session:  # it has led for a while
        session.execute(sa.update(leader.Leader).values(since=leader.Leader.since - 1000.0))
    run_out(engine, ago)
    second.beat()
    assert (seen[1].now - seen[1].since < 1.0) == is_break


def test_the_thread_renews_and_ends(sqlite_engine: sa.Engine) -> None:
    seen: list[Lease] = []
    thread = leadership(sqlite_engine, seen)
    thread.start()
    assert eventually(lambda: len(seen) >= 2)
    thread.stop()
    with Session(sqlite_engine) as session:
        assert leader.is_free(session, role=ROLE, holder="somebody else")
