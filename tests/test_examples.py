"""The examples run, on a run as the collector stores it."""

import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.test_watching import noise, obey, train_until_nan

ANALYSIS = Path(__file__).parents[1] / "examples" / "analysis.py"


def study(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ANALYSIS), *given, "--url", f"sqlite:///{folder}/lossguard.db"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_study_of_a_run_that_was_rolled_back_tells_its_cost_and_draws_it(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        (order,) = train_until_nan(trainer)["orders"]
        losses = {"loss": noise(3, 300), "step_seconds": [0.5] * 300}
        trainer.report(obey(trainer, order), range(200, 500), losses)
    done = study(tmp_path, "r1", "--plot", "study.html")
    assert done.returncode == 0, done.stderr
    assert "steps consumed 601, effective 500, lost 101 (16.8%)" in done.stdout
    assert "nonfinite" in done.stdout
    assert "losses that were not finite: {'NaN': 1}" in done.stdout
    assert "verified" in done.stdout
    assert "live line" in (tmp_path / "study.html").read_text(encoding="utf-8")


def test_a_run_that_is_not_there_is_one_sentence(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    done = study(tmp_path, "nope")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "there is no run 'nope'" in done.stderr
