"""The login file, what groups may do, and which requests ask for a login; `test_journeys.py` logs people in."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dashboard import login
from dashboard.__main__ import app
from dashboard.login import BadLogin, Login, Right
from tests.dashboard.login_provider import login_file

LOGIN = Login({"*": Right.READ, "ml-oncall": Right.OPERATE})


def test_a_login_file_says_what_groups_may_do(tmp_path: Path) -> None:
    rights = {"research": Right.READ, "ml-oncall": Right.OPERATE}
    assert login.read(login_file(tmp_path)) == Login(rights, host="127.0.0.1")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('client_id = "lossguard"', "", r"\[auth\] needs client_id"),
        ("[auth]", "[author]", r"\[auth\] needs redirect_uri, cookie_secret"),
        ("0123456789abcdef0123456789abcdef", "short", "cookie_secret must have 32 characters or more"),
        ("/oauth2callback", "/callback", "redirect_uri must be the dashboard's address with the path /oauth2callback"),
        ('"operate"', '"admin"', "the scope of the group 'ml-oncall' must be read or operate, not 'admin'"),
        ("[groups]", "[group]", r"\[groups\] must give groups a scope"),
        ("[groups]", "[login]\nmax_hours = 0\n[groups]", "max_hours must be above 0 and at most 720, not 0"),
        ("[groups]", '[login]\ngroups_claim = ""\n[groups]', "groups_claim must be the name of a claim"),
        ("[auth]", 'login = "x"\n[auth]', r"\[login\] must be a table, not 'x'"),
        ("[auth]", "[auth", "is no TOML"),
    ],
)
def test_a_malformed_login_file_is_one_sentence(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = login_file(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadLogin, match=reason):
        login.read(path)


def test_the_dashboard_does_not_start_without_the_login_that_was_asked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--login", str(tmp_path / "nothing.toml"), "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "nothing.toml cannot be read: No such file or directory" in done.output


@pytest.mark.parametrize(
    ("groups", "rights"),
    [
        (["ml-oncall"], {Right.READ, Right.OPERATE}),
        ("ml-oncall", {Right.READ, Right.OPERATE}),
        (["others"], {Right.READ}),
        (None, {Right.READ}),
        ([["ml-oncall"], 3], {Right.READ}),
    ],
)
def test_a_viewer_has_the_rights_of_all_groups(groups: Any, rights: set[Right]) -> None:
    person = login.viewer(LOGIN, {"name": "Ada", "email": "ada@x", "groups": groups, "iat": time.time()})
    assert person.name == "Ada <ada@x>"
    assert person.rights == rights


@pytest.mark.parametrize("issued_at", [1.0, None, "yesterday", True])
def test_a_login_ends_after_its_hours_and_one_without_a_time_at_once(issued_at: Any) -> None:
    person = login.viewer(LOGIN, {"sub": "ada", "groups": ["ml-oncall"], "iat": issued_at})
    assert person.has_expired
    assert not person.may(Right.OPERATE)


def test_a_person_without_a_name_is_called_by_the_e_mail_address_or_the_subject() -> None:
    assert login.viewer(LOGIN, {"email": "ada@x"}).name == "ada@x"
    assert login.viewer(LOGIN, {"sub": "7", "name": " \n"}).name == "7"
    assert login.viewer(LOGIN, {"name": "A\nda"}).name == "Ada"
    assert login.viewer(LOGIN, {"name": "\u200b"}).name == "somebody"


DATA = ("/media/a.csv", "/lossguard/figures/a", "/lossguard/values/a", "/_stcore/upload_file/a/b", "/_stcore/metrics",
        "/_stcore/bidi-components/a", "/component/a/b", "/app/static/a", "/media//a.csv", "/media")  # fmt: skip
PAGES = ("/", "/run", "/incident", "/static/js/a.js", "/oauth2callback", "/auth/login", "/lossguard/chart.js")


def cookie(monkeypatch: pytest.MonkeyPatch, secret: str = "s" * 32, **claims: Any) -> str:
    """That of somebody who has logged in, as Streamlit signs it."""
    from streamlit.web.server import server_util
    from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

    monkeypatch.setattr(server_util, "get_cookie_secret", lambda: "s" * 32)
    text = json.dumps({"is_logged_in": True, "sub": "ada", "iat": time.time(), **claims})
    signed = create_signed_value(secret, "_streamlit_user", text)
    return signed.decode() if isinstance(signed, bytes) else signed


def asked(path: str, signed: str = "", rights: dict[str, Right] | None = None) -> int:
    """The status of a request with this cookie."""

    async def reached(request: Request) -> PlainTextResponse:
        return PlainTextResponse("reached")

    app = Starlette(routes=[Route("/{path:path}", reached, methods=["GET", "PUT", "OPTIONS", "DELETE"])])
    guarded = login.LoginRequired(app, Login(rights or LOGIN.rights), open_paths=["/lossguard/chart.js"])
    cookies = {"_streamlit_user": signed} if signed else {}
    with TestClient(guarded, base_url="http://localhost", cookies=cookies) as http:
        statuses = {http.request(method, path).status_code for method in ("GET", "PUT", "OPTIONS", "DELETE")}
    (status,) = statuses
    return status


@pytest.mark.parametrize("path", DATA)
def test_figures_values_and_files_ask_for_the_login_like_pages(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = cookie(monkeypatch)
    assert asked(path, signed) == 200
    assert asked(path) == asked(path, "forged") == asked(path, "x" + signed[1:]) == 401
    assert asked(path, cookie(monkeypatch, secret="t" * 32)) == 401
    assert asked(path, cookie(monkeypatch, is_logged_in=False)) == 401
    assert asked(path, cookie(monkeypatch, iat=1.0)) == 401  # it has expired
    assert asked(path, signed, rights={"research": Right.READ}) == 403  # of a group that may not read


@pytest.mark.parametrize("path", [*PAGES, "/_stcore/health", "/_stcore/host-config"])
def test_what_asks_for_the_login_and_the_health_need_none(path: str) -> None:
    assert asked(path) == 200
