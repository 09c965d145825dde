import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTED_BY = [
    ("lossguard show r", "argparse"),
    ("lossguard show r", "urllib3"),
    ("lossguard_server", "argparse"),
    ("lossguard_server db check", "sqlalchemy"),
    ("db check", "sqlalchemy"),
    ("monitor serve", "fastapi"),
    ("dashboard", "sqlalchemy"),
    ("trainer run", "torch"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "module"), IMPORTED_BY)
def test_ctrl_c_during_the_imports_of_a_command_ends_it_with_130_and_without_a_word(
    command: str, module: str, tmp_path: Path
) -> None:
    found_before_the_real_one = tmp_path / f"{module}.py"
    found_before_the_real_one.write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = [sys.executable, "-m", *command.split()]
    done = subprocess.run(process, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
