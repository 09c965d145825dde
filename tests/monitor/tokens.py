"""Tokens, and clients that send them."""

from typing import Any

import sqlalchemy as sa

from db.records import access
from db.records.access import Scope
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient


class TokenClient:
    """A client that sends one token."""

    def __init__(self, http: TestClient, token: str) -> None:
        self.http, self.headers = http, {"authorization": f"Bearer {token}"}

    def status(self, method: str, path: str, body: Any = None) -> int:
        """Status of the response to a request under the API's prefix."""
        return self.http.request(method, f"{API}{path}", json=body, headers=self.headers).status_code


def create_token(
    engine: sa.Engine, name: str, *scopes: Scope, project: str | None = None, run: str | None = None
) -> str:
    """A new token of the store."""
    with writing(engine) as session:
        return access.create_token(session, name=name, scopes=scopes, project=project, run=run, now=NOW)[1]
