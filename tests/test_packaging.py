"""The wheel holds the SDK alone, and the SDK runs without PyTorch or NumPy."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITHOUT = """
import sys
for name in ("torch", "numpy", "pandas", "sqlalchemy", "fastapi"):
    sys.modules[name] = None  # importing it raises
import lossguard
with lossguard.init("p", directory=sys.argv[1], mode="offline") as run:
    run.log(0, loss=1.0)
"""


@pytest.mark.slow
def test_the_wheel_holds_the_sdk_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("lossguard-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lossguard"}
    assert "lossguard/torch/loss.py" in names


def test_the_sdk_runs_with_the_standard_library_and_urllib3_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*.spool"))
