import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.records import access
from db.records.access import Scope, TokenExists, digest
from db.store.engine import writing


def test_a_token_is_found_by_its_digest_until_it_is_revoked(session: Session) -> None:
    assert not access.any_token(session)
    row, token = access.create_token(session, name="t", scopes=[Scope.READ], project=None, now=1.0)
    assert access.token_with(session, digest=digest(token)) is row
    with pytest.raises(TokenExists, match="choose another name"):
        access.create_token(session, name="t", scopes=[Scope.READ], project=None, now=1.0)
    assert access.revoke_token(session, name="t", now=2.0)
    assert access.revoke_token(session, name="t", now=3.0)
    assert row.revoked_at == 2.0
    assert access.token_with(session, digest=digest(token)) is None
    assert access.any_token(session)
    assert not access.revoke_token(session, name="nobody", now=2.0)


def test_an_installed_token_replaces_the_one_that_had_its_name_and_stays_revoked_if_it_is(engine: sa.Engine) -> None:
    def install(token: str, name: str = "t", project: str | None = "gpt") -> bool:
        return access.install_token(
            session, name=name, token=token, scopes=[Scope.REPORT, Scope.READ], project=project, now=1.0
        )

    with writing(engine) as session:
        assert install("first")
        assert not install("first")
        row = access.token_with(session, digest=digest("first"))
        assert row is not None
        assert (row.name, row.scopes, row.project) == ("t", ["report", "read"], "gpt")
        with pytest.raises(TokenExists, match="already installed as 't'"):
            install("first", name="other")
        assert install("first", project=None)
        assert row.project is None
        access.revoke_token(session, name="t", now=2.0)
        assert not install("first", project=None)
        assert access.token_with(session, digest=digest("first")) is None
        assert install("second")
        assert access.token_with(session, digest=digest("second")) is row
        assert access.token_with(session, digest=digest("first")) is None
        assert len(access.tokens(session)) == 1


def test_the_trail_has_the_newest_entries_first(session: Session) -> None:
    for at, run in enumerate(["a", "b", "a"]):
        access.record(session, who="ada", action="policy", run=run, details={}, now=float(at))
    assert [entry.at for entry in access.trail(session)] == [2.0, 1.0, 0.0]
    assert [entry.at for entry in access.trail(session, run="a", limit=1)] == [2.0]
