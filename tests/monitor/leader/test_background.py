"""Long work of the leader runs in a thread, one at a time and not too often."""

import logging
import threading

import pytest
import sqlalchemy as sa

from db.store.leader import Lease
from monitor.leader.background import Background, MayGoOn
from tests.waiting import wait_for

LEASE = Lease(role="leader", holder="a", term=1, since=0.0, now=0.0)


def always() -> bool:
    return True


def test_work_that_is_going_on_is_not_begun_again() -> None:
    begun: list[Lease] = []
    may_end = threading.Event()

    def work(lease: Lease, may_go_on: MayGoOn) -> None:
        begun.append(lease)
        may_end.wait(60.0)

    background = Background("test", work, every_seconds=0.0)
    background.start_if_due(LEASE, always)
    wait_for(lambda: begun, seconds=60, what="the work begins")
    background.start_if_due(LEASE, always)
    assert begun == [LEASE]
    may_end.set()

    def has_begun_again() -> bool:
        background.start_if_due(LEASE, always)
        return len(begun) > 1

    wait_for(has_begun_again, seconds=60, what="the work begins again")


def test_work_that_was_done_is_not_due_at_once() -> None:
    done: list[Lease] = []
    background = Background("test", lambda lease, may_go_on: done.append(lease))
    background.start_if_due(LEASE, always)
    wait_for(lambda: done, seconds=60, what="the work is done")
    background.start_if_due(LEASE, always)
    assert done == [LEASE]


@pytest.mark.parametrize(
    ("error", "messages"),
    [(RuntimeError, ["test failed; it is tried again in 0 s"]), (sa.exc.TimeoutError, [])],
)
def test_work_that_fails_is_logged_unless_the_database_is_away_and_begun_again(
    error: type[Exception], messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[Lease] = []

    def fail(lease: Lease, may_go_on: MayGoOn) -> None:
        begun.append(lease)
        raise error("no")

    background = Background("test", fail, every_seconds=0.0)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            background.start_if_due(LEASE, always)
            background.join()
    assert len(begun) == 2
    assert [record.message for record in caplog.records] == messages * 2
