"""Steps lost when the trainer is killed with kill -9, with the collector up and down: logged minus arrived steps.

python -m benchmarks.kill
"""

import signal
import subprocess
import sys
import tempfile
import textwrap

import lossguard
from benchmarks.rows import Row, print_rows
from benchmarks.sink import sink

NUM_KILLS = 5
UNREACHABLE_URL = "http://127.0.0.1:9"
TRAINER_SCRIPT = textwrap.dedent(
    """
    import sys, time, lossguard
    run = lossguard.init("bench", run_id="killed", url=sys.argv[1], directory=sys.argv[2])
    for step in range(1_000_000):
        run.log(step, loss=2.5, grad_norm=0.5, log_z=10.0, lr=3e-4)
        print(step, flush=True)
        time.sleep(0.0005)
    """
)


def measure() -> list[Row]:
    rows = []
    for up in (True, False):
        logged, lost = zip(*(_kill_once(200 + 100 * number, up=up) for number in range(NUM_KILLS)), strict=True)
        name = f"steps lost after kill -9, collector {'up' if up else 'down'}"
        rows.append(Row(name, sum(lost), "steps", 0.0, f"{sum(logged)} steps logged in {NUM_KILLS} killed runs"))
    return rows


def _kill_once(after: int, *, up: bool) -> tuple[int, int]:
    """Kill a trainer after about `after` steps and resume its run: (steps it logged, steps that never arrived)."""
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAINER_SCRIPT, running.url if up else UNREACHABLE_URL, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
            assert trainer.stdout is not None
            line = next(line for line in trainer.stdout if int(line) >= after)
            trainer.send_signal(signal.SIGKILL)
            logged = 1 + int([line, *trainer.stdout.read().splitlines()][-1])
        lossguard.init("bench", run_id="killed", url=running.url, directory=folder).finish()
        return logged, len(set(range(logged)) - running.steps())


if __name__ == "__main__":
    print_rows(measure())
