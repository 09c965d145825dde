"""A client that asks a FakeCollector in the same process: no connection, so that a test can make many deliveries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossguard.client.client import Client
from lossguard.delivery.sender import Sender
from lossguard.vocabulary.errors import CollectorError, LogOnce, NotFound, Rejected
from tests.lossguard.collectors import FakeCollector

ERRORS = {404: NotFound, 422: Rejected}


class DirectClient(Client):
    def __init__(self, collector: FakeCollector) -> None:
        super().__init__("http://direct")
        self.collector = collector

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        sent = json.loads(json.dumps(body, allow_nan=False))
        status, answer = self.collector.handle(method, f"/api/v1{path}", sent)
        if status >= 400:
            raise ERRORS.get(status, CollectorError)(f"{status} {answer}")
        return answer


def deliver(folder: Path, collector: FakeCollector) -> Sender:
    """Deliver the spools of a run as `python -m lossguard sync` does; returns the sender that did it."""
    sender = Sender(folder, DirectClient(collector), LogOnce(quiet=True))
    sender.start()
    while sender.is_alive() and not sender.num_failures:
        sender.join(0.05)
    sender.close(0.0)
    assert not sender.num_failures, sender.problem
    return sender
