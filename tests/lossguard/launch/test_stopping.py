import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lossguard.launch.child import Child
from lossguard.launch.stopping import Stop

pytestmark = pytest.mark.slow

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def start(tmp_path: Path, code: str) -> Child:
    child = Child.start([sys.executable, "-c", code], os.environ, tmp_path / "journal")
    time.sleep(0.5)  # it has set its handlers
    return child


def ended(child: Child) -> int:
    """How it ended."""
    deadline = time.monotonic() + 5.0
    while (code := child.ended()) is None:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)
    return code


def test_a_command_is_asked_first_and_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    child = start(tmp_path, DEAF)
    stop = Stop(child, 100.0, grace=10.0)
    stop.advance(child, 109.0)
    time.sleep(0.1)
    assert child.lives()
    stop.advance(child, 110.0)
    assert ended(child) == -signal.SIGKILL


def test_without_a_grace_it_is_killed_at_once(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    Stop(child, 100.0, grace=0.0)
    assert ended(child) == -signal.SIGKILL


def test_one_that_listens_ends_by_sigterm(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    Stop(child, 100.0, grace=10.0).finish()
    assert ended(child) == -signal.SIGTERM
