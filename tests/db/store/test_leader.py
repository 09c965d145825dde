"""The lease of a role is taken by one holder at a time, whoever asks at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.store import leader
from db.store.engine import writing


def test_of_holders_that_claim_at_once_one_gets_the_lease(engine: sa.Engine) -> None:
    def claim(holder: str) -> bool:
        with writing(engine) as session:
            return leader.claim(session, role="r", holder=holder, seconds=60.0) is not None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(claim, "abcdabcd")).count(True) in (1, 2)  # the winner renews its lease
    with Session(engine) as session:
        assert session.scalars(sa.select(leader.Leader.term)).all() == [1]


def test_the_clock_of_the_database_is_in_unix_seconds(engine: sa.Engine) -> None:
    with Session(engine) as session:
        earliest = time.time() - 5.0
        assert earliest < leader.now(session) < time.time() + 5.0


def test_who_has_no_lease_holds_nothing_and_anybody_may_take_it(engine: sa.Engine) -> None:
    with writing(engine) as session:
        assert leader.is_free(session, role="r", holder="a")
        assert not leader.holds(session, leader.Lease("r", "a", 1, 0.0, 0.0))
        lease = leader.claim(session, role="r", holder="a", seconds=60.0)
        assert lease is not None
        assert leader.holds(session, lease)
        assert leader.is_free(session, role="r", holder="a")
        assert not leader.is_free(session, role="r", holder="b")
        leader.resign(session, lease)
    with writing(engine) as session:
        assert not leader.holds(session, lease)
        assert leader.is_free(session, role="r", holder="b")
