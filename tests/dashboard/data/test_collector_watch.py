"""Whether the collector answers, as the pages learn it."""

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from dashboard.data import collector_watch
from dashboard.data.collector_watch import CHECK_SECONDS, CollectorWatch, Outage
from tests.dashboard.serving import serving

URL = "http://collector"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answers(*given: str | None) -> Callable[[str], str | None]:
    """One after the other."""
    left: Iterator[str | None] = iter(given)
    return lambda _url: next(left)


def asked(watch: CollectorWatch) -> Outage | None:
    """What is known after the next answer."""
    watch.outage()
    watch.wait()
    return watch.outage()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_watch, "RETRY_SECONDS", 0.0)


def test_an_outage_lasts_from_two_failures_in_a_row_until_the_next_answer() -> None:
    clock = Clock()
    watch = CollectorWatch(URL, answers(None, "lost", None, "gone", "gone", "still gone", None), clock)
    assert asked(watch) is None
    clock.now += CHECK_SECONDS
    assert asked(watch) is None  # one lost answer is no outage
    clock.now += CHECK_SECONDS
    assert asked(watch) == Outage(104.0, "gone")
    clock.now += CHECK_SECONDS
    assert asked(watch) == Outage(104.0, "still gone")
    clock.now += CHECK_SECONDS
    assert asked(watch) is None


def test_nobody_waits_for_a_collector_that_hangs_and_it_is_asked_once() -> None:
    release, num_asked = threading.Event(), []

    def hangs(url: str) -> None:
        num_asked.append(url)
        release.wait(60)

    watch = CollectorWatch(URL, hangs, Clock())
    assert [watch.outage() for _ in range(50)] == [None] * 50
    release.set()
    watch.wait()
    assert num_asked == [URL]
    assert watch.outage() is None  # it was asked just now
    assert num_asked == [URL]


def test_a_collector_is_asked_without_a_token_and_what_is_none_is_named(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_watch, "TIMEOUT_SECONDS", 60.0)
    with serving(sqlite_engine) as url:
        assert collector_watch.ping(url) is None
    assert collector_watch.ping(url) == "the connection is refused"
    assert "its address cannot be used" in (collector_watch.ping("ftp://nowhere") or "")
