"""Long work of the leader runs in a thread, one at a time and not too often."""

import threading

from db.store.leader import Lease
from monitor.leader.background import Background
from tests.waiting import wait_for

LEASE = Lease(role="stalls", holder="a", term=1, since=0.0, now=0.0)


def test_work_that_is_going_on_is_not_begun_again() -> None:
    begun: list[Lease] = []
    may_end = threading.Event()

    def work(lease: Lease) -> None:
        begun.append(lease)
        may_end.wait(60.0)

    background = Background("test", work, every_seconds=0.0)
    background.start_if_due(LEASE)
    wait_for(lambda: begun, seconds=60, what="the work begins")
    background.start_if_due(LEASE)
    assert begun == [LEASE]
    may_end.set()

    def has_begun_again() -> bool:
        background.start_if_due(LEASE)
        return len(begun) > 1

    wait_for(has_begun_again, seconds=60, what="the work begins again")


def test_work_that_was_done_is_not_due_at_once() -> None:
    done: list[Lease] = []
    background = Background("test", done.append)
    background.start_if_due(LEASE)
    wait_for(lambda: done, seconds=60, what="the work is done")
    background.start_if_due(LEASE)
    assert done == [LEASE]
