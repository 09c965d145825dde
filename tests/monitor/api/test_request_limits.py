"""The collector's memory is bounded, no client uses up a budget, and nothing is half stored."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from lossguard.vocabulary.protocol import API
from monitor.api.request_limits import Budget, Caller, RequestLimits
from monitor.problems import Problem
from monitor.settings import Settings
from tests import virtual_time
from tests.monitor.client import collector


class Slow:
    """An application that reads its body and answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.go.wait()
        await PlainTextResponse("done")(scope, receive, send)


async def ask(
    app: RequestLimits, *bodies: bytes, announced: bool = True, path: str = "/x", method: str = "POST", who: str = "a"
) -> tuple[int, dict[str, str]]:
    """(status, headers) of a request whose body comes in these parts."""
    length = (b"content-length", str(sum(map(len, bodies))).encode())
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "client": (who, 1)}
    scope |= {"headers": [length if announced else (b"transfer-encoding", b"chunked")]}
    left = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    messages: Iterator[Message] = iter([*left, {"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


def full(**limits: Any) -> tuple[int, str, int]:
    """(status of a second request while the first is served, its Retry-After, status of one afterwards)."""

    async def play() -> tuple[int, str, int]:
        slow = Slow()
        app = RequestLimits(slow, Settings(**limits))
        first = asyncio.create_task(ask(app, b"," * 1000))
        await asyncio.sleep(0)
        status, headers = await asyncio.wait_for(ask(app, b"," * 1000), 60)
        slow.go.set()
        assert (await first)[0] == 200
        assert (app.requests.taken, app.bytes.taken, app.values.taken) == (0, 0, 0)
        return status, headers["retry-after"], (await ask(app, b"x"))[0]

    return asyncio.run(play())


@pytest.mark.parametrize(
    "limits", [{"max_requests_at_once": 1}, {"max_bytes_at_once": 1500}, {"max_values_at_once": 1500}]
)
def test_while_full_the_answer_is_429_and_later_requests_are_admitted(limits: dict[str, int]) -> None:
    assert full(**limits) == (429, "1", 200)


def test_an_empty_body_without_a_length_is_over() -> None:
    async def play() -> int:
        app = RequestLimits(slow := Slow(), Settings())
        slow.go.set()
        return (await asyncio.wait_for(ask(app, announced=False), 60))[0]

    assert asyncio.run(play()) == 200


def test_endless_downloads_do_not_delay_reports() -> None:
    async def play() -> list[int]:
        slow = Slow()
        app = RequestLimits(slow, Settings(max_requests_at_once=2, max_exports_at_once=4))
        export: dict[str, Any] = {"path": f"{API}/runs/r1/export", "method": "GET"}
        downloads = [asyncio.create_task(ask(app, **export, who=who)) for who in "abb"]
        await asyncio.sleep(0)
        further = (await asyncio.wait_for(ask(app, **export), 60))[0]
        report = asyncio.create_task(ask(app, b"x", path=f"{API}/runs/r1/reports"))
        await asyncio.sleep(0)
        assert (app.exports.taken, app.requests.taken) == (3, 1)
        slow.go.set()
        served = [(await one)[0] for one in (*downloads, report)]
        assert (app.exports.taken, app.requests.taken) == (0, 0)
        return [further, *served]

    assert asyncio.run(play()) == [429, 200, 200, 200, 200]


def test_one_large_request_alone_is_admitted_and_health_always(sqlite_engine: sa.Engine) -> None:
    async def play() -> list[int]:
        slow = Slow()
        slow.go.set()
        app = RequestLimits(slow, Settings(max_bytes_at_once=1024))
        alone = (await ask(app, b"x" * 5000))[0]
        app.requests.taken = 10**6
        return [alone, (await ask(app, path="/healthz"))[0]]

    assert asyncio.run(play()) == [200, 200]


@pytest.mark.parametrize("content", [b"x" * 3000, iter([b"x" * 1500, b"x" * 1500])], ids=["announced", "measured"])
def test_a_body_beyond_the_limit_is_refused_whether_it_announces_its_length_or_not(
    sqlite_engine: sa.Engine, content: Any
) -> None:
    http = collector(sqlite_engine, max_report_bytes=2048)
    answer = http.post(f"{API}/runs", content=content)
    assert answer.status_code == 413
    assert "LOSSGUARD_MAX_REPORT_BYTES" in answer.json()["detail"]


def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(sqlite_engine: sa.Engine) -> None:
    """Four bodies of 16 MiB of {},{},.. took 1.4 GB."""
    http = collector(sqlite_engine, max_values=1000)
    kind = {"content-type": "application/json"}
    accepted = http.post(f"{API}/runs", content=b"[" + b"0," * 998 + b"0]", headers=kind)
    refused = http.post(f"{API}/runs", content=b"[" + b"0," * 1000 + b"0]", headers=kind)
    assert (accepted.status_code, refused.status_code) == (422, 413)
    assert "LOSSGUARD_MAX_VALUES" in refused.json()["detail"]


def paced(parts: Sequence[bytes], pauses: Sequence[float]) -> tuple[int, float]:
    """(status, seconds) of a request whose parts come after these pauses: at least 10,000 bytes/s, or 0.1 s late."""

    async def play() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        slow = Slow()
        slow.go.set()
        app = RequestLimits(slow, Settings(body_timeout=0.1, min_body_rate=10_000))
        left = iter(zip(parts, pauses, strict=True))
        sent: list[Message] = []

        async def receive() -> Message:
            part, pause = next(left, (b"", 0.0))
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": part, "more_body": part != b""}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b""}
        began = loop.time()
        await app(scope | {"headers": [(b"content-length", b"10000")]}, receive, send)
        assert (app.bytes.taken, app.values.taken) == (0, 0)
        return sent[0]["status"], loop.time() - began

    return virtual_time.run(play())


def test_a_body_may_take_its_time_while_it_keeps_the_slowest_rate() -> None:
    status, seconds = paced([b"x" * 1000] * 10, [0.05] * 10)
    assert status == 200
    assert seconds == pytest.approx(0.5)


def test_a_body_that_comes_byte_by_byte_is_given_up_although_it_never_stops() -> None:
    """Each byte renewed the deadline, so four connections kept every trainer out for as long as they liked."""
    status, seconds = paced([b"x"] * 1000, [0.02] * 1000)
    assert status == 408
    assert seconds == pytest.approx(0.1, rel=0.1)


def test_a_body_of_which_most_came_at_once_may_not_stop_for_long_either() -> None:
    status, seconds = paced([b"x" * 9000, b"x"], [0.0, 60.0])
    assert status == 408
    assert seconds == pytest.approx(0.1, rel=0.1)


def test_a_request_whose_body_is_not_complete_takes_no_place() -> None:
    """64 half-requests kept every other one out."""

    async def play() -> int:
        slow = Slow()
        slow.go.set()
        app = RequestLimits(slow, Settings(max_requests_at_once=1))
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-length", b"9")]}

        async def silent() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(_message: Message) -> None: ...

        halves = [asyncio.create_task(app(scope, silent, send)) for _ in range(64)]
        await asyncio.sleep(0)
        status = (await ask(app, b"x"))[0]
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)
        assert app.bytes.taken == 0
        return status

    assert asyncio.run(play()) == 200


def test_a_client_that_goes_away_in_its_body_leaves_nothing_behind() -> None:
    async def play() -> int:
        app = RequestLimits(Slow(), Settings())
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-length", b"9")]}

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            raise AssertionError(message)

        await app(scope, gone, send)
        return app.bytes.taken + app.requests.taken

    assert asyncio.run(play()) == 0


@pytest.mark.parametrize(
    ("method", "other", "status"),
    [("POST", "/runs/noisy/segments", 429), ("POST", "/runs/quiet/reports", 200), ("GET", "/runs/noisy", 200)],
)
def test_writes_of_one_run_leave_room_for_those_of_others(method: str, other: str, status: int) -> None:
    async def play() -> int:
        slow = Slow()
        app = RequestLimits(slow, Settings(max_requests_at_once=16))  # one of them for a run
        noisy = asyncio.create_task(ask(app, b"{}", path=f"{API}/runs/noisy/reports"))
        await asyncio.sleep(0)
        second = asyncio.create_task(ask(app, b"{}", path=f"{API}{other}", method=method))
        await asyncio.sleep(0)
        slow.go.set()
        assert (await noisy)[0] == 200
        return (await second)[0]

    assert asyncio.run(play()) == status


def num_admitted(budget: Budget, held: ExitStack, who: Caller) -> int:
    """How many requests of the client are admitted at once."""
    for number in range(1000):
        take = held.enter_context(budget.reserve(who))
        try:
            take(1)
        except Problem:
            return number
    raise AssertionError("there is no limit")


def test_a_client_gets_half_and_leaves_room_for_others_with_its_token_or_its_address() -> None:
    budget = Budget(100)
    with ExitStack() as held:
        assert num_admitted(budget, held, Caller("p", "a")) == 50
        assert num_admitted(budget, held, Caller("p", "b")) == 25
        assert num_admitted(budget, held, Caller("q", "a")) == 25
    assert budget.taken == 0


def test_a_token_at_many_addresses_and_an_address_with_many_tokens_get_three_quarters() -> None:
    for clients in ([Caller("p", "a"), Caller("p", "b")], [Caller("p", "a"), Caller("q", "a")]):
        budget = Budget(100)
        with ExitStack() as held:
            assert sum(num_admitted(budget, held, who) for who in clients) == 75
            assert num_admitted(budget, held, Caller("other", "elsewhere")) == 25


def test_one_request_always_has_room_and_a_first_one_may_be_larger_than_a_share() -> None:
    budget = Budget(100)
    with budget.reserve(Caller("p", "a")) as take:
        take(1000)
        take(1000)  # it grows
        take(0)
    with budget.reserve(Caller("p", "a")) as take:
        take(10)
        with budget.reserve(Caller("q", "b")) as take_other:
            take_other(90)
            with pytest.raises(Problem) as refused:
                take(1)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})


def test_what_writes_one_run_gets_a_sixteenth_whoever_sends_it() -> None:
    def num_writes(held: ExitStack, budget: Budget, who: Caller, run_id: str) -> int:
        for number in range(100):
            take = held.enter_context(budget.reserve(who, run_id=run_id))
            try:
                take(1)
            except Problem:
                return number
        raise AssertionError("there is no limit")

    budget = Budget(128)
    with ExitStack() as held:
        assert num_writes(held, budget, Caller("p", "a"), "noisy") == 8
        assert num_writes(held, budget, Caller("q", "b"), "noisy") == 0
        assert num_writes(held, budget, Caller("p", "a"), "quiet") == 8
    assert budget.taken == 0


Step = tuple[int, int, int]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 60)), max_size=30))
def test_a_budget_is_never_exceeded_by_more_than_one_request_and_is_whole_at_the_end(steps: list[Step]) -> None:
    budget = Budget(100)
    with ExitStack() as held:
        takes: dict[tuple[int, int], Callable[[int], None]] = {}
        for principal, address, amount in steps:
            if (principal, address) not in takes:
                who = Caller(str(principal), str(address))
                takes[principal, address] = held.enter_context(budget.reserve(who))
            before = budget.taken
            try:
                takes[principal, address](amount)
            except Problem:
                assert budget.taken == before
            assert budget.taken <= 100 or len(set(budget._taken_by)) == 3  # it is alone
    assert (budget.taken, dict(budget._taken_by)) == (0, {})


def test_the_client_of_a_request_is_its_token_and_its_address() -> None:
    assert Caller.of({"type": "http", "client": ("10.0.0.1", 1)}) == Caller("", "10.0.0.1")
    assert Caller.of({"type": "http"}) == Caller("", "")
