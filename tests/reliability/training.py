"""Runs that are reported all the while something happens to the collectors."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import urllib3

from tests.reliability.collector import Trainer, history, reports, verdicts
from tests.waiting import pause, wait_for

NAN_STEP, NUM_STEPS = 600, 1_200


class Training(threading.Thread):
    """Reports a run whose loss is NaN once, up to the verification of the rollback, and waits between two reports.

    As long as it waits, it does not come to its end: it sends the last report but one again and again.
    """

    def __init__(
        self,
        urls: Sequence[str],
        run_id: str,
        *,
        seconds: float = 0.0,
        size: int = 10,
        http: urllib3.PoolManager | None = None,
    ) -> None:
        """`size`: steps of a report."""
        super().__init__()
        self.trainer, self.seconds, self.size = Trainer(urls, run_id, http=http), seconds, size
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._deliver(reports(self.trainer.open("a"), 0, NAN_STEP + 10, self.size, seed=1, nan_at=NAN_STEP))
            (order,) = self.trainer.orders.values()
            segment = self.trainer.obey(order, "b")
            *most, last = reports(segment, order["rewind_to"], NUM_STEPS, self.size, seed=7)
            self._deliver(most)
            while self.seconds:
                self._deliver(most[-1:])
            self._deliver([last])
        except Exception as error:  # shown by the test, not by the thread
            self.failure = error

    def _deliver(self, bodies: Sequence[Any]) -> None:
        for body in bodies:
            self.trainer.report(body)
            pause(self.seconds)

    @property
    def num_answered(self) -> int:
        """Steps in the reports that were answered, also in those that were sent again."""
        return self.trainer.accepted + self.trainer.duplicates

    def outcome(self) -> tuple[Any, Any]:
        """Everything that is stored of the run, once it has ended."""
        self.join(120)
        assert self.failure is None, self.failure
        assert not self.is_alive()
        return verdicts(self.trainer), history(self.trainer)


@contextmanager
def trainings(
    urls: Sequence[str], *, num_runs: int, seconds: float = 0.3, size: int = 10, http: urllib3.PoolManager | None = None
) -> Iterator[list[Training]]:
    """Runs that report all the while, each to the collectors in turn, and at full speed after the block."""
    started = [Training(urls, f"run-{number}", seconds=seconds, size=size, http=http) for number in range(num_runs)]
    for one in started:
        one.start()
    try:
        yield started
    finally:
        for one in started:
            one.seconds = 0.0


def wait_for_reports(runs: Sequence[Training]) -> None:
    """Wait until each run has two more reports."""
    before = [one.num_answered for one in runs]

    def have_gone_on() -> bool:
        return all(
            one.num_answered >= steps + 2 * one.size or one.failure for one, steps in zip(runs, before, strict=True)
        )

    wait_for(have_gone_on, seconds=60, what="two more reports of each run")
