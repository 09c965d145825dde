"""How long a rollback by restart takes, from the order to the first new step, and how much of it is ours.

python -m benchmarks.restart

A collector, and a launched command that resumes from its own checkpoints; an operator orders ten rollbacks. The command
writes down when it gets SIGTERM, when its first line runs, and when it has done its first step: what lies between the
first line and that step, and the start of an interpreter, is the command's own. For comparison: the same command,
stopped and started again by a shell's loop, which knows no order.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lossguard
from benchmarks.rows import Row, print_rows
from lossguard_server.processes import Processes
from tests.ports import free_port
from tests.waiting import wait_for

NUM_ORDERS = 10
SCRIPT = """
import time; begun = time.time()
import json, os, signal, sys
def note(kind, at): print(json.dumps([kind, at]), file=open("moments", "a"))
note("start", begun)
signal.signal(signal.SIGTERM, lambda *_: (note("stop", time.time()), os._exit(0)))
from torch.utils.tensorboard import SummaryWriter
writer = SummaryWriter("tensorboard")
step = int(sys.argv[sys.argv.index("--resume") + 1]) if "--resume" in sys.argv else 0
os.makedirs("out", exist_ok=True)
first = step
while True:
    writer.add_scalar("loss", 2.0, step)
    if step == first: note("step", time.time())
    step += 1
    if step % 10 == 0: open(f"out/step_{step}", "w").close()
    time.sleep(0.02)
"""


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, Processes(Path(name) / "logs") as processes:
        folder = Path(name)
        environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{folder}/bench.db"}
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
        processes.wait_until_up("collector", f"{url}/healthz")
        found = [_split(*each) for each in _orders(url, folder)]
        bare = statistics.median(_bare(folder) for _ in range(5))
    until_stop, until_start, own, whole = (sorted(each) for each in zip(*found, strict=True))
    ours = statistics.median(a + b for a, b, _, _ in found) - bare
    comparison = (
        f"an interpreter's start: {bare:.2f} s; the command until its first step: {statistics.median(own):.2f} s"
    )
    return [
        Row("restart: order to first new step, median", statistics.median(whole), "s", None, comparison),
        Row("restart: of which ours, median", ours, "s", 1.0, "without the start of the interpreter"),
        Row("restart: order to SIGTERM, median", statistics.median(until_stop), "s", None, ""),
        Row("restart: end of the command to its first line, median", statistics.median(until_start), "s", None, ""),
    ]


def _split(ordered: float, moments: dict[str, float]) -> tuple[float, float, float, float]:
    """Seconds: order to SIGTERM, its end to the first line of the next one, to the first step; and all together."""
    stop, start, step = moments["stop"], moments["start"], moments["step"]
    return stop - ordered, start - stop, step - start, step - ordered


def _orders(url: str, folder: Path) -> list[tuple[float, dict[str, float]]]:
    """For each order, when it was given, and the moments that the command noted after it."""
    script, moments = folder / "train.py", folder / "moments"
    script.write_text(SCRIPT)
    options = ["--restart-with", "generic", "--checkpoints", "out/step_{step}", "--resume-args", "--resume {step}"]
    options += ["--run-id", "r", "--project", "bench", "--url", url]
    command = [sys.executable, "-m", "lossguard", "launch", *options, "--", sys.executable, str(script)]
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    launcher = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    found = []
    try:
        with lossguard.Client(url) as client:
            for _ in range(NUM_ORDERS):
                num_before = _wait_for_steps(client, moments)
                client.request("POST", "/runs/r/rollback", {"rewind_to": 10})
                ordered = time.time()
                wait_for(lambda n=num_before: len(_noted(moments)) >= n + 3, seconds=60, what="a restart")  # type: ignore[misc]
                found.append((ordered, dict(_noted(moments)[num_before:])))
    finally:
        launcher.terminate()
        launcher.wait()
    return found


def _wait_for_steps(client: lossguard.Client, moments: Path) -> int:
    """Until the run can be rolled back and reports the steps of its present segment. Returns how much is noted."""

    def is_ready() -> bool:
        try:
            run = client.get("/runs/r")
        except lossguard.CollectorError:
            return False
        newest = run["newest_step"]
        return 10 in run["restorable_steps"] and newest is not None and newest["step"] > 30

    wait_for(is_ready, seconds=60, what="restorable steps")
    time.sleep(1.0)
    return len(_noted(moments))


def _noted(moments: Path) -> list[tuple[str, float]]:
    return [tuple(json.loads(line)) for line in moments.read_text().splitlines()] if moments.exists() else []


def _bare(folder: Path) -> float:
    """Seconds from a process's start to its first line."""
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    return float(done.stdout) - begun


if __name__ == "__main__":
    os.environ.pop("LOSSGUARD_RUN_ID", None)
    print_rows(measure())
