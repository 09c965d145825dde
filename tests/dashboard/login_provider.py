"""A login file of the dashboard, and a real OpenID Connect provider on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILE = """
[auth]
redirect_uri = "{redirect_uri}"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "lossguard"
client_secret = "s"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[groups]
"research" = "read"
"ml-oncall" = "operate"
"""


def login_file(folder: Path, provider: str = "http://localhost:1", dashboard: str = "http://127.0.0.1:8501") -> Path:
    path = folder / "login.toml"
    path.write_text(FILE.format(provider=provider, redirect_uri=f"{dashboard}/oauth2callback"))
    return path


@contextmanager
def provider() -> Iterator[str]:
    """The address of a provider with three people."""
    mock = pytest.importorskip("oidc_provider_mock", reason="the package oidc-provider-mock is not installed")
    people = [
        mock.User(sub="ada", claims={"name": "Ada L\u00f6w", "email": "ada@example.org", "groups": ["ml-oncall"]}),
        mock.User(sub="ron", claims={"name": "Ron", "groups": ["research"]}),
        mock.User(sub="eve", claims={"name": "Eve", "groups": []}),
    ]
    with mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"
