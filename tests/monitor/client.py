"""A trainer's side of the protocol for tests: a client over an application in this process."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, testclient

from lossguard.protocol import API, encode_number

NOW = 1_800_000_000.0

Number = float | None


class TestClient(testclient.TestClient):
    """Asks for this machine: without a token a collector answers to no other name."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(app, **{"base_url": "http://127.0.0.1"} | options)


class Trainer:
    """Registers a run and reports to it, as the SDK does."""

    def __init__(self, http: TestClient, run_id: str = "r1", **values: Any) -> None:
        self.http, self.run_id = http, run_id
        body = {"id": run_id, "project": "gpt", "capabilities": ["rollback"], "started_at": NOW} | values
        self.registered = http.post(f"{API}/runs", json=body)
        assert self.registered.status_code in (200, 201), self.registered.text

    def open(self, key: str, fork_step: int | None = 0, reason: str = "start", order: int | None = None) -> int:
        body = {"key": key, "fork_step": fork_step, "reason": reason, "order": order, "opened_at": NOW}
        answer = self.http.post(f"{API}/runs/{self.run_id}/segments", json=body)
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["segment"]
        return number

    def report(
        self, segment: int, steps: Sequence[int], metrics: Mapping[str, Sequence[Number]], **others: Any
    ) -> dict[str, Any]:
        columns = {name: [encode_number(value) for value in column] for name, column in metrics.items()}
        body = {"segment": segment, "steps": list(steps), "times": [NOW + step for step in steps], "metrics": columns}
        answer = self.http.post(f"{API}/runs/{self.run_id}/reports", json=body | others)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def get(self, path: str = "", **query: Any) -> Any:
        answer = self.http.get(f"{API}/runs/{self.run_id}{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()
