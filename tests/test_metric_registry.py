"""A metric is one row of the registry, a signal two rows. All else follows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
END_OF_METRICS = ')\n"""All metrics, in the order in which lists and charts show them."""'
ROWS = """\
    Metric(
        name="dead_units",
        title="Dead units (fraction)",
        gauge="lossguard_dead_units",
        gauge_help="Units that are never active",
        default_chart=True,
    ),
    Metric(
        name="weight_norm",
        title="Weight norm (L2)",
        short_name="weight norm",
        detector_input=True,
        incident_kind=IncidentKind.GRAD_SPIKE,
        gauge="lossguard_weight_norm",
        gauge_help="Global L2 norm of the weights",
        default_chart=True,
        log_axis=LogAxis.ALWAYS,
    ),
"""
START_OF_PARAMETERS = "PARAMETERS = {\n"
PARAMETERS = '    "weight_norm": SignalParameters(log=True, min_noise=0.1, gross_rise=float(np.log(30.0))),\n'


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a metric and a signal more."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("lossguard", "db", "monitor", "dashboard"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/metric_registry_drive.py", folder)
    _insert(folder / "lossguard/vocabulary/metrics.py", ROWS, before=END_OF_METRICS)
    _insert(folder / "monitor/detection/scoring/signals.py", START_OF_PARAMETERS + PARAMETERS, at=START_OF_PARAMETERS)
    return folder


def _insert(path: Path, text: str, *, before: str = "", at: str = "") -> None:
    """Put `text` before a marker, or in its place."""
    content, marker = path.read_text(), before or at
    assert content.count(marker) == 1, f"{path.name} has no single {marker!r}"
    path.write_text(content.replace(marker, text + before))


def _run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "LOSSGUARD_DATABASE_URL": "sqlite:///store.db"}
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def driven(copy: Path) -> dict[str, Any]:
    """What became of the two, from the report to the charts."""
    result: dict[str, Any] = json.loads(_run(copy, "metric_registry_drive.py").splitlines()[-1])
    return result


def test_a_metric_has_its_series_without_a_migration(driven: dict[str, Any]) -> None:
    assert driven["drift"] is None
    assert driven["series"] == [1.25 + step for step in range(400)]
    assert driven["metrics"] == ["loss", "perplexity", "dead_units", "weight_norm"]


def test_a_signal_opens_an_incident_of_its_kind(driven: dict[str, Any]) -> None:
    (incident,) = driven["incidents"]
    found = {name: incident[name] for name in ("kind", "signal", "onset_step")}
    assert found == {"kind": "grad_spike", "signal": "weight_norm", "onset_step": 300}


def test_both_are_exported_to_prometheus_and_only_the_signal_has_a_peak(driven: dict[str, Any]) -> None:
    assert 'lossguard_dead_units{project="p",run="r1"} 400.25' in driven["prometheus"]
    assert 'lossguard_weight_norm{project="p",run="r1"}' in driven["prometheus"]
    assert 'lossguard_peak_weight_norm{project="p",run="r1"}' in driven["prometheus"]
    assert "lossguard_peak_dead_units" not in driven["prometheus"]


def test_both_have_a_chart_and_the_signal_is_drawn_with_its_incident(driven: dict[str, Any]) -> None:
    titles = [title for title in driven["charts"] if title]
    assert sum("Dead units (fraction)" in title for title in titles) == 1
    assert sum("Weight norm (L2)" in title for title in titles) == 2


def test_the_report_draws_both_and_names_the_incident(copy: Path, driven: dict[str, Any]) -> None:
    assert driven["incidents"]
    _run(copy, "-m", "dashboard", "report", "r1", "-o", "report.html")
    page = (copy / "report.html").read_text()
    assert "Dead units (fraction)" in page
    assert "Weight norm (L2)" in page
    assert "weight norm" in page
