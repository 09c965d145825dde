import os
import subprocess
import sys

import pytest

from lossguard.launch.child import Process, descendants, kill_all
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

NESTED = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_processes_below_another_one_are_found_in_any_session_and_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", NESTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        below = int(process.stdout.readline())
        found = descendants(os.getpid())
        pids = [each.pid for each in found]
        assert pids.index(process.pid) < pids.index(below)
        ours = [each for each in found if each.pid in (process.pid, below)]
        assert all(each.lives() for each in ours)
        kill_all(ours)
        wait_for(lambda: not any(each.lives() for each in ours), seconds=60, what="both have ended")


def test_another_process_with_the_same_pid_is_left_alone() -> None:
    other = Process(os.getpid(), "1")
    assert not other.lives()
    other.kill()
