"""Tokens, which say who may do what, and the audit trail of who did what. The caller owns the transaction."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Audit, Intervention, Order, Run, Token


class Scope(StrEnum):
    """Permission of a token."""

    REPORT = "report"  # for a trainer: runs, segments, reports, answers to orders
    READ = "read"  # for viewers: every GET
    OPERATE = "operate"  # for people who decide: approve, reject, roll back, release, policy, delete


class TokenExists(ValueError):
    """There is a token of this name, revoked or not."""


def digest(token: str) -> str:
    """The digest of a token, which is all that the store keeps of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(
    session: Session, *, name: str, scopes: Sequence[Scope], project: str | None, run: str | None = None, now: float
) -> tuple[Token, str]:
    """A new token: (its row, the token itself, which cannot be read again). Raises TokenExists."""
    if session.scalar(sa.select(Token.id).where(Token.name == name)) is not None:
        raise TokenExists(f"there is already a token {name!r}; choose another name")
    token = "lg_" + secrets.token_urlsafe(32)
    row = Token(name=name, digest=digest(token), scopes=[*scopes], project=project, run=run, created_at=now)
    session.add(row)
    session.flush()
    return row, token


def install_token(
    session: Session, *, name: str, token: str, scopes: Sequence[Scope], project: str | None, now: float
) -> bool:
    """Let `token` be the one of this name, whatever the name stood for before: whether that changed anything.

    A token that was revoked stays so. Raises TokenExists when it has another name already.
    """
    same = session.scalar(sa.select(Token).where(Token.digest == digest(token)))
    if same is not None and same.name != name:
        raise TokenExists(f"this token is already installed as {same.name!r}")
    if same is not None and (sorted(same.scopes), same.project, same.run) == (sorted(scopes), project, None):
        return False
    row = session.scalar(sa.select(Token).where(Token.name == name)) or Token(name=name, created_at=now)
    if same is None:
        row.digest, row.revoked_at = digest(token), None
    row.scopes, row.project, row.run = [*scopes], project, None
    session.add(row)
    session.flush()
    return True


def tokens(session: Session) -> Sequence[Token]:
    """Return all tokens, revoked ones included, oldest first."""
    return session.scalars(sa.select(Token).order_by(Token.id)).all()


def any_token(session: Session) -> bool:
    """True if a token was ever created: from then on every request needs one, even if all are revoked."""
    return session.scalar(sa.select(Token.id).limit(1)) is not None


def token_with(session: Session, *, digest: str) -> Token | None:
    """The token with this digest, unless it is revoked."""
    return session.scalar(sa.select(Token).where(Token.digest == digest, Token.revoked_at.is_(None)))


def revoke_token(session: Session, *, name: str, now: float) -> bool:
    """Revoke a token: whether there is one of this name. A token that is revoked twice keeps its first date."""
    row = session.scalar(sa.select(Token).where(Token.name == name))
    if row is not None and row.revoked_at is None:
        row.revoked_at = now
        session.flush()
    return row is not None


@dataclass(frozen=True, slots=True)
class Owner:
    """The run or project that a token may be bound to."""

    project: str
    run: str


def owner_of(
    session: Session, *, run_id: str | None = None, order: int | None = None, intervention: int | None = None
) -> Owner | None:
    """The project and the run of a run, of an order or of an intervention; None when it does not exist."""
    found = sa.select(Run.project, Run.id)
    if run_id is not None:
        found = found.where(Run.id == run_id)
    elif order is not None:
        found = found.join(Order, Order.run_pk == Run.pk).where(Order.id == order)
    else:
        found = found.join(Intervention, Intervention.run_pk == Run.pk).where(Intervention.id == intervention)
    row = session.execute(found).first()
    return None if row is None else Owner(*row)


def record(session: Session, *, who: str, action: str, run: str | None, details: dict[str, Any], now: float) -> None:
    session.add(Audit(at=now, who=who, action=action, run=run, details=details))
    session.flush()


def trail(session: Session, *, run: str | None = None, limit: int = 1000) -> Sequence[Audit]:
    """The newest entries of the audit trail, newest first."""
    found = sa.select(Audit).order_by(Audit.id.desc()).limit(limit)
    return session.scalars(found if run is None else found.where(Audit.run == run)).all()
