"""Collectors are replaced by those of the next release and back while runs report: no step is lost."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import urllib3
from alembic.script import ScriptDirectory

from db import migrate
from tests import postgres
from tests.reliability.collector import CollectorProcess, running
from tests.reliability.training import Training, trainings, wait_for_reports

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NUM_RUNS = 3
MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, compatible_from = "9999", "{newest}", "{newest}"
def upgrade():
    op.add_column("segments", sa.Column("later", sa.Integer()))
def downgrade():
    op.drop_column("segments", "later")
"""


def next_release(folder: Path) -> Path:
    """The code of a release with one migration more than this one."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("lossguard", "db", "monitor"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    newest = ScriptDirectory(str(migrate.MIGRATIONS)).get_current_head()
    (folder / "db/migrations/versions/9999_later.py").write_text(MIGRATION.format(newest=newest))
    return folder


def db(code: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "db", *arguments]
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def readiness(collector: CollectorProcess) -> int:
    return urllib3.request("GET", f"{collector.url}/readyz", retries=False, timeout=20).status


@pytest.mark.timeout(600)
@pytest.mark.needs("postgresql")
def test_collectors_are_replaced_one_by_one_and_back_without_a_lost_report(tmp_path: Path) -> None:
    later = next_release(tmp_path / "later")
    baseline = str(ScriptDirectory(str(migrate.MIGRATIONS)).get_current_head())
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        db(ROOT, "upgrade", "--url", server.url())
        collectors = [CollectorProcess(server.url(), tmp_path / f"{at}.log") for at in range(2)]
        stack.enter_context(running(*collectors))
        with trainings([collector.url for collector in collectors], num_runs=NUM_RUNS) as runs:
            wait_for_reports(runs)
            db(later, "upgrade", "--url", server.url())
            wait_for_reports(runs)
            assert [readiness(one) for one in collectors] == [200, 200], "the schema is newer, and for them too"
            for code in (later, None):
                for collector in collectors:
                    collector.stop()
                    collector.code = code
                    collector.start()
                    collector.wait_until_up()
                    wait_for_reports(runs)
            db(later, "downgrade", baseline, "--url", server.url())
            wait_for_reports(runs)
            assert [readiness(one) for one in collectors] == [200, 200]
        undisturbed = Training([collectors[0].url], "undisturbed")
        undisturbed.start()
        expected = undisturbed.outcome()
        for one in runs:
            assert one.outcome() == expected, one.trainer.run_id
