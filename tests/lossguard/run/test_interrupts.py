import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lossguard import Guard
from tests.lossguard.scripted import Indices, Memory, ScriptedRun

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    run, checkpoints = ScriptedRun(), Memory([])
    guard = Guard(run, checkpoints=checkpoints)
    finished = []
    for step, _ in guard.steps(Indices(), 100):
        if step == 3:
            os.kill(os.getpid(), number)
        finished.append(step)
    assert finished == [0, 1, 2, 3]
    assert checkpoints.steps() == [0, 4]
    assert (guard.interrupted, guard.interrupted_by, run.interrupted) == (True, number, True)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_a_keyboard_interrupt_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    def loop() -> None:
        for _ in Guard(ScriptedRun(), checkpoints=Memory([])).steps(Indices(), 100):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert signal.getsignal(signal.SIGINT) is before
