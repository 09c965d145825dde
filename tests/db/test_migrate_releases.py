"""A release uses a store that a later one has upgraded where it may, and refuses all others untouched."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

from db import migrate
from db.cli.app import app
from db.models import SchemaCompatibility
from db.store.engine import BASELINE, reading
from tests.db.seed import bring_later_release, contents, make_pre_release, newest_revision

TABLE = '    op.create_table("later", sa.Column("x", sa.Integer()))'


def upgrade_by_a_later_release(engine: sa.Engine, folder: Path, compatible_from: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bring_later_release(folder, patch, TABLE, compatible_from=compatible_from)
        migrate.upgrade(engine)


@pytest.fixture
def url(sqlite_engine: sa.Engine) -> str:
    return str(sqlite_engine.url)


def test_every_migration_from_the_first_on_says_which_releases_fit() -> None:
    script = ScriptDirectory(str(migrate.MIGRATIONS))
    known = {one.revision for one in script.walk_revisions()}
    assert all(one.module.compatible_from in known for one in script.walk_revisions())


def test_a_release_goes_on_under_a_newer_schema_that_keeps_what_it_uses(engine: sa.Engine, tmp_path: Path) -> None:
    upgrade_by_a_later_release(engine, tmp_path, newest_revision())
    assert migrate.misfit(engine) is None
    migrate.upgrade(engine)  # as a collector does that starts again
    assert migrate.revisions(engine)[0] == "9999"
    assert "may go on using it" in (migrate.drift(engine) or "")


def test_a_command_says_that_the_schema_is_newer_and_fits(sqlite_engine: sa.Engine, url: str, tmp_path: Path) -> None:
    upgrade_by_a_later_release(sqlite_engine, tmp_path, BASELINE)
    done = CliRunner().invoke(app, ["upgrade", "--url", url])
    assert (done.exit_code, done.output) == (
        0,
        f"the database stays at revision 9999, which is newer than this release ({newest_revision()}) and fits it\n",
    )


def test_a_release_refuses_a_newer_schema_that_is_not_for_it(
    sqlite_engine: sa.Engine, url: str, tmp_path: Path
) -> None:
    upgrade_by_a_later_release(sqlite_engine, tmp_path, "9999")
    reason = (
        f"the schema is at 9999, for releases from 9999 on, and this one is of {newest_revision()};"
        " install the release that upgraded the store"
    )
    assert migrate.misfit(sqlite_engine) == migrate.drift(sqlite_engine) == reason
    done = CliRunner().invoke(app, ["upgrade", "--url", url])
    assert (done.exit_code, done.output) == (2, f"db: cannot use the database {url}: {reason}\n")


def test_what_the_schema_needs_goes_back_with_it(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with reading(sqlite_engine) as session:
        before = session.scalars(sa.select(SchemaCompatibility.compatible_from)).all()
    revision = newest_revision()
    upgrade_by_a_later_release(sqlite_engine, tmp_path, "9999")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", tmp_path / "migrations")
        migrate.downgrade(sqlite_engine, revision)
    with reading(sqlite_engine) as session:
        assert session.scalars(sa.select(SchemaCompatibility.compatible_from)).all() == before


@pytest.mark.parametrize("command", ["pack", "prune --dry-run", "unarchive --all"])
def test_a_command_under_a_schema_that_leaves_this_release_out_does_not_advise_to_upgrade(
    sqlite_engine: sa.Engine, url: str, tmp_path: Path, command: str
) -> None:
    upgrade_by_a_later_release(sqlite_engine, tmp_path, "9999")
    done = CliRunner().invoke(app, [*command.split(), "--url", url])
    assert (done.exit_code, "install the release that upgraded the store" in done.output) == (2, True), done.output


# Stores of pre-releases


@pytest.mark.parametrize("mark", ["0027", BASELINE, None])
def test_a_store_of_a_pre_release_is_refused_in_one_sentence_and_left_untouched(
    engine: sa.Engine, mark: str | None
) -> None:
    make_pre_release(engine, mark)
    before = contents(engine)
    url = engine.url.render_as_string(hide_password=False)
    sentence = (
        f"a pre-release of Lossguard wrote this store (schema {mark or 'without a number'}), and this version cannot"
        " read it; keep it, and export its runs to Parquet with the version that wrote it"
    )
    for words in ("upgrade", "downgrade base", "pack", "prune --days 0", "export r1", "archive r1 --to /tmp/a"):
        done = CliRunner().invoke(app, [*words.split(), "--url", url])
        assert (done.exit_code, done.output.count("\n"), sentence in done.output) == (2, 1, True), done.output
    done = CliRunner().invoke(app, ["check", "--url", url])
    assert (done.exit_code, done.output) == (1, f"{sentence}\n")
    assert migrate.misfit(engine) == sentence
    assert contents(engine) == before
