import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lossguard.launch.child import Child, Stop
from tests.lossguard.launch.launching import exit_code
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w'); time.sleep(60)"


def start(folder: Path, code: str) -> Child:
    code = f"import os; os.chdir({str(folder)!r}); {code}"
    return Child.start([sys.executable, "-c", code], os.environ, folder / "journal")


def test_a_command_is_asked_first_and_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    child = start(tmp_path, DEAF)
    wait_for((tmp_path / "deaf").exists, seconds=60, what="that it ignores SIGTERM")
    stop = Stop(child, 100.0, grace=10.0)
    stop.advance(child, 109.0)
    time.sleep(0.1)
    assert child.lives()
    stop.advance(child, 110.0)
    assert exit_code(child) == -signal.SIGKILL


def test_without_a_grace_it_is_killed_at_once(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    Stop(child, 100.0, grace=0.0)
    assert exit_code(child) == -signal.SIGKILL


def test_one_that_listens_ends_by_sigterm(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    Stop(child, 100.0, grace=10.0).finish()
    assert exit_code(child) == -signal.SIGTERM
