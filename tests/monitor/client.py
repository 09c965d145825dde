"""A trainer's side of the protocol for tests: a client over an application in this process."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import urllib3
from fastapi import testclient

from lossguard import Client
from lossguard.spool.writer import WRITER_HEADER, Writer
from lossguard.vocabulary.protocol import API, encode_number
from monitor.app import create_app
from monitor.settings import Settings

NOW = 1_800_000_000.0

Number = float | None


class Clock:
    """The time of a collector, which stands until a test sets it."""

    now = NOW

    def __call__(self) -> float:
        return self.now


class TestClient(testclient.TestClient):
    """Asks for this machine: without a token a collector answers to no other name."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{"base_url": "http://127.0.0.1"} | options)


Pair = tuple[TestClient, TestClient]
"""Clients of two collectors with one store."""


def collector(engine: sa.Engine, *, clock: Callable[[], float] | None = lambda: NOW, **settings: Any) -> TestClient:
    """A client of a new collector over this store, at NOW or by another clock; None: by that of the database."""
    return TestClient(create_app(Settings(**settings), engine=engine, clock=clock))


class AppClient(Client):
    """The SDK's client, over an application in this process."""

    def __init__(self, http: TestClient) -> None:
        super().__init__("http://127.0.0.1")
        self._pool = _Pool(http)  # type: ignore[assignment]


class _Pool:
    def __init__(self, http: TestClient) -> None:
        self._http = http

    def urlopen(
        self, method: str, url: str, *, body: bytes | None, headers: Any, redirect: bool, preload_content: bool = True
    ) -> Any:
        answer = self._http.request(method, url, content=body, headers=headers, follow_redirects=redirect)
        content = io.BytesIO(answer.content)
        return urllib3.HTTPResponse(content, dict(answer.headers), answer.status_code, preload_content=preload_content)

    def close(self) -> None: ...


def writer(folder: str, session: int = 1) -> Writer:
    """The process of a session in a folder, which one hexadecimal digit names."""
    return Writer(id=folder * 32, session=f"{session:022x}", process=f"{session}@host-{folder}")


class Trainer:
    """Registers a run and reports to it, as the SDK does."""

    def __init__(self, http: TestClient, run_id: str = "r1", *, writer: Writer | None = None, **values: Any) -> None:
        self.http, self.run_id = http, run_id
        self.headers = {} if writer is None else {WRITER_HEADER: writer.to_header()}
        body = {"id": run_id, "project": "gpt", "capabilities": ["rollback"], "started_at": NOW} | values
        self.registered = http.post(f"{API}/runs", json=body, headers=self.headers)
        assert self.registered.status_code in (200, 201), self.registered.text

    def open(
        self,
        key: str,
        fork_step: int | None = 0,
        reason: str = "start",
        order: int | None = None,
        *,
        opened_at: float = NOW,
    ) -> int:
        body = {"key": key, "fork_step": fork_step, "reason": reason, "order": order, "opened_at": opened_at}
        answer = self.http.post(f"{API}/runs/{self.run_id}/segments", json=body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["segment"]
        return number

    def report(
        self, segment: int, steps: Sequence[int], metrics: Mapping[str, Sequence[Number]], **others: Any
    ) -> dict[str, Any]:
        columns = {name: [encode_number(value) for value in column] for name, column in metrics.items()}
        body = {"segment": segment, "steps": list(steps), "times": [NOW + step for step in steps], "metrics": columns}
        answer = self.http.post(f"{API}/runs/{self.run_id}/reports", json=body | others, headers=self.headers)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def get(self, path: str = "", **query: Any) -> Any:
        answer = self.http.get(f"{API}/runs/{self.run_id}{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()
