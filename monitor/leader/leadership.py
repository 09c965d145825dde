"""One of several collectors does what only one may do, in a thread of its own; another takes over if it fails.

The lease is a row of the database (`db.store.leader`), so collectors need not know each other. A leader that is killed
is replaced after LEASE_SECONDS + BEAT_SECONDS at most; one that is stopped resigns. Every collector compares its clock
with that of the database at each beat.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.store import leader
from db.store.engine import writing
from db.store.leader import Lease
from monitor.leader.background import Background, MayGoOn

log = logging.getLogger(__name__)

ROLE = "leader"
LEASE_SECONDS = 9.0
BEAT_SECONDS = 2.5
"""Seconds between two renewals, and between two looks at the runs."""


class Leadership:
    """Calls `work` every `beat_seconds` while this process is the leader, from one thread, and starts what is due
    `in_background`.

    `work` ends early once the second half of the lease has begun: then the lease is renewed first.
    `observe_clock` is called with the time of the database, and this process's own time at which it was read.
    """

    def __init__(
        self,
        engine: sa.Engine,
        work: Callable[[Lease, MayGoOn], object],
        *,
        in_background: Sequence[Background] = (),
        observe_clock: Callable[[float, float], None] = lambda database, own: None,
        lease_seconds: float = LEASE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._engine, self._work, self._in_background = engine, work, in_background
        self._observe_clock = observe_clock
        self._lease_seconds, self._beat_seconds = lease_seconds, beat_seconds
        self.holder = secrets.token_hex(8)
        self._lease: Lease | None = None
        self._valid_until = 0.0  # by the monotonic clock
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_leader(self) -> bool:
        """False as soon as the lease may have run out, whatever the database would say."""
        return time.monotonic() < self._valid_until

    def start(self) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="lossguard-leader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait for the present beat and the background work, then leave the role to the next collector at once."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for each in self._in_background:
            each.join()
        self._resign()

    def _run(self) -> None:
        while not self._stopped.wait(self._beat_seconds):
            self.beat()

    def beat(self) -> None:
        """Take or renew the lease, and do the work if it is ours."""
        try:
            lease = self._claim()
            self._note(lease)
            if lease is not None:
                for each in self._in_background:
                    each.start_if_due(lease, self._may_go_on)
                self._work(lease, self._may_finish_beat)
        except sa.exc.SQLAlchemyError as error:  # the lease runs out unless the next beat succeeds
            log.debug("the leader's lease was not renewed: %s", type(error).__name__)
        except Exception:
            log.exception("looking for stalled runs failed; another collector may take over")
            self._resign()

    def _may_go_on(self) -> bool:
        return self.is_leader and not self._stopped.is_set()

    def _may_finish_beat(self) -> bool:
        return self._may_go_on() and time.monotonic() < self._valid_until - self._lease_seconds / 2

    def _claim(self) -> Lease | None:
        with Session(self._engine) as session:
            own = time.time()
            self._observe_clock(leader.now(session), (own + time.time()) / 2)
            if not leader.is_free(session, role=ROLE, holder=self.holder):
                self._valid_until = 0.0
                return None
        with writing(self._engine) as session:
            session.connection()  # SQLite waits here for other writers
            began = time.monotonic()
            lease = leader.claim(session, role=ROLE, holder=self.holder, seconds=self._lease_seconds)
        self._valid_until = 0.0 if lease is None else began + self._lease_seconds
        return lease

    def _note(self, lease: Lease | None) -> None:
        """Log the change from one leader to another."""
        before, self._lease = self._lease, lease
        if lease is not None and (before is None or before.term != lease.term):
            log.info("this collector looks for stalled runs now, in term %d", lease.term)
        elif lease is None and before is not None:
            log.warning("another collector looks for stalled runs now: the lease of term %d was lost", before.term)

    def _resign(self) -> None:
        lease, self._lease, self._valid_until = self._lease, None, 0.0
        if lease is None:
            return
        try:
            with writing(self._engine) as session:
                leader.resign(session, lease)
        except sa.exc.SQLAlchemyError as error:  # it runs out by itself
            log.debug("the leader's lease was not given up: %s", type(error).__name__)
