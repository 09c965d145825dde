import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

from db import migrate
from db.cli.app import app
from db.store import features
from db.store.engine import create_engine, reading, writing
from db.store.features import FIRST_STATED, SchemaCompatibility

LATER = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, compatible_from = "9998", "{newest}", "{compatible_from}"
def upgrade():
    op.create_table("later", sa.Column("x", sa.Integer()))
def downgrade():
    op.drop_table("later")
"""
"""The migration of a later release."""


def newest() -> str:
    return str(ScriptDirectory(str(migrate.MIGRATIONS)).get_current_head())


def upgrade_by_a_later_release(engine: sa.Engine, folder: Path, compatible_from: str) -> None:
    migrations = folder / "migrations"
    # Other processes may be writing their bytecode beside the files.
    shutil.copytree(migrate.MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    text = LATER.format(newest=newest(), compatible_from=compatible_from)
    (migrations / "versions" / "9998_later.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", migrations)
        migrate.upgrade(engine)


@pytest.fixture
def url(tmp_path: Path, migrated_file: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'store.db')}"


@pytest.fixture
def store(url: str) -> Iterator[sa.Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_every_migration_from_the_first_on_says_which_releases_fit() -> None:
    script = ScriptDirectory(str(migrate.MIGRATIONS))
    stated = [one for one in script.walk_revisions() if one.revision >= FIRST_STATED]
    known = {one.revision for one in script.walk_revisions()}
    assert stated
    assert all(one.module.compatible_from in known for one in stated)


def test_a_release_goes_on_under_a_newer_schema_that_keeps_what_it_uses(engine: sa.Engine, tmp_path: Path) -> None:
    upgrade_by_a_later_release(engine, tmp_path, newest())
    assert migrate.misfit(engine) is None
    migrate.upgrade(engine)  # as a collector does that starts again
    assert migrate.revisions(engine)[0] == "9998"
    assert "may go on using it" in (migrate.drift(engine) or "")


def test_a_command_says_that_the_schema_is_newer_and_fits(store: sa.Engine, url: str, tmp_path: Path) -> None:
    upgrade_by_a_later_release(store, tmp_path, "0019")
    done = CliRunner().invoke(app, ["upgrade", "--url", url])
    assert (done.exit_code, done.output) == (
        0,
        f"the database stays at revision 9998, which is newer than this release ({newest()}) and fits it\n",
    )


def test_a_release_refuses_a_newer_schema_that_is_not_for_it(store: sa.Engine, url: str, tmp_path: Path) -> None:
    upgrade_by_a_later_release(store, tmp_path, "9998")
    reason = (
        f"the schema is at 9998, for releases from 9998 on, and this one is of {newest()};"
        " install the release that upgraded the store"
    )
    assert migrate.misfit(store) == migrate.drift(store) == reason
    done = CliRunner().invoke(app, ["upgrade", "--url", url])
    assert (done.exit_code, done.output) == (2, f"db: cannot use the database {url}: {reason}\n")


def test_a_release_refuses_a_newer_schema_with_a_feature_that_it_does_not_know(
    store: sa.Engine, tmp_path: Path
) -> None:
    upgrade_by_a_later_release(store, tmp_path, "0019")
    with writing(store) as session:
        features.enable(session, "shards", now=0.0)
    assert (
        migrate.misfit(store)
        == "the store has the feature shards, which this release does not know; install a newer one"
    )


def test_what_the_schema_needs_goes_back_with_it(store: sa.Engine, tmp_path: Path) -> None:
    with reading(store) as session:
        before = session.scalars(sa.select(SchemaCompatibility.compatible_from)).all()
    revision = newest()
    upgrade_by_a_later_release(store, tmp_path, "9998")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", tmp_path / "migrations")
        migrate.downgrade(store, revision)
    with reading(store) as session:
        assert session.scalars(sa.select(SchemaCompatibility.compatible_from)).all() == before


@pytest.mark.parametrize("command", ["pack", "prune --dry-run", "unarchive --all"])
def test_a_command_under_a_schema_that_leaves_this_release_out_does_not_advise_to_upgrade(
    store: sa.Engine, url: str, tmp_path: Path, command: str
) -> None:
    upgrade_by_a_later_release(store, tmp_path, "9998")
    done = CliRunner().invoke(app, [*command.split(), "--url", url])
    assert (done.exit_code, "install the release that upgraded the store" in done.output) == (2, True), done.output
