"""The lease of a run: of several processes with one run id, one at a time gets the orders and answers them.

Whoever reports first takes the lease, and every report renews it. Another folder takes it only once it has run out; a
newer process of the same folder takes it at once, and the older process has then lost it for good. The caller has
locked the run, so that several collectors agree.
"""

import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from db.cli.command_engine import as_typed_here
from db.models import Run
from lossguard.spool.writer import Writer
from monitor.problems import Problem

RENEW_BELOW = 0.75
"""A lease is renewed when less than this share of its time is left: writing it with every report would cost more."""
ENDED = "~"
"""Appended to a session whose lease a person has ended: it sorts after that session, and before any later one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A request's claim to act for a run."""

    writer: Writer | None
    """The process that sent the request; None: it does not say."""
    now: float
    """Unix seconds, by the collector's clock."""
    seconds: float
    """Duration of a lease."""

    @property
    def digest(self) -> str | None:
        """Digest of the process in `Segment.writer` of the segments that it opens."""
        return None if self.writer is None else self.writer.digest


def take(run: Run, claim: Claim) -> bool:
    """True if the process may act for the run: it takes the lease, or renews it.

    A process that does not say who it is takes none, and may act as long as nobody holds it. One that only delivers
    what an ended process has left takes none from another folder, also if that has ended.
    """
    writer = claim.writer
    if writer is None:
        return not is_held(run, claim.now)
    is_ours = writer.id == run.lease_writer
    if writer.only_delivers and not is_ours and run.lease_writer is not None:
        return False
    _watch(run, claim)
    is_newer = writer.session > (run.lease_session or "") if is_ours else not is_held(run, claim.now)
    if is_newer or (is_ours and writer.session == run.lease_session):
        left, by_wall = seconds_left(run, claim.now), (run.lease_until or 0.0) - claim.now
        if is_newer or left < RENEW_BELOW * claim.seconds or by_wall > claim.seconds:
            run.lease_writer, run.lease_session, run.lease_process = writer.id, writer.session, writer.process
            run.lease_until = claim.now + claim.seconds
            _deadlines.pop(_key(run), None)
            _watch(run, claim)
        return True
    return False


def is_held(run: Run, now: float) -> bool:
    return seconds_left(run, now) > 0


def is_replaced(run: Run, claim: Claim) -> bool:
    """True if another process of the same folder than this one, which did not get it, holds the lease."""
    writer = claim.writer
    return writer is not None and writer.id == run.lease_writer and is_held(run, claim.now)


def seconds_left(run: Run, now: float) -> float:
    """Seconds for which the lease is still valid; 0 when nobody holds it."""
    if run.lease_until is None:
        return 0.0
    left, counted = run.lease_until - now, _deadlines.get(_key(run), math.inf) - time.monotonic()
    return max(0.0, counted if left > counted + SET_BACK else left)


# A clock that is set back must not prolong a lease: each collector also counts it by the monotonic clock, from when it
# gave the lease, or first saw one that another collector gave.

SET_BACK = 5.0
"""Seconds by which the clock must lag behind the monotonic one to count as set back."""
MAX_WATCHED = 4_096
_deadlines: OrderedDict[tuple[str | None, str | None, float | None], float] = OrderedDict()
"""A lease -> when it ends, by the monotonic clock."""


def _key(run: Run) -> tuple[str | None, str | None, float | None]:
    return run.lease_writer, run.lease_session, run.lease_until


def _watch(run: Run, claim: Claim) -> None:
    """Count the lease by the monotonic clock from now on, unless that is done already."""
    if run.lease_until is not None and _key(run) not in _deadlines:
        left = min(run.lease_until - claim.now, claim.seconds)
        _deadlines[_key(run)] = time.monotonic() + left
        if len(_deadlines) > MAX_WATCHED:
            _deadlines.popitem(last=False)


def release(run: Run, *, now: float) -> None:
    """The process has ended by itself: the next one need not wait."""
    if run.lease_until is not None:
        run.lease_until = min(run.lease_until, now)


def end(run: Run, *, now: float) -> None:
    """A person takes the lease away: its process does not get it back; a restart of it may, and any other process."""
    release(run, now=now)
    if run.lease_session is not None:
        run.lease_session = run.lease_session.rstrip(ENDED) + ENDED


def check_holder(run: Run, claim: Claim) -> None:
    """Take or renew the lease. Raises Problem 409, which names the process that holds it."""
    if take(run, claim):
        return
    left = seconds_left(run, claim.now)
    until = f"its lease ends in {left:.0f} s unless it reports again" if left else "its lease has ended"
    detail = (
        f"process {run.lease_process} writes the run {run.id!r}, and {until}; only one process at a time carries out "
        "the orders of a run: stop that process, or use another run id; an operator takes the run from it with: "
        f"{as_typed_here('python -m monitor lease end')} {run.id}"
    )
    raise Problem(409, "another process writes this run", detail, ["header", "lossguard-writer"])
