"""What `lossguard launch` costs a training process: time per call of its tracker, start-up time, lines lost at kill -9.

    python -m benchmarks.launch

Calls with and without the hook alternate in one process, which a real launcher watches and delivers to a sink. Trackers
that are not installed are left out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.rows import Row, print_rows
from benchmarks.sink import Sink, sink

NUM_CALLS = {"wandb": 4000, "tensorboard": 20_000, "tensorboardX": 20_000, "mlflow": 4000, "trackio": 4000}
NUM_STARTS = 25
NUM_KILLS = 5
WARM_UP = 100
MAX_ADDED = 10.0
"""Microseconds that a hook may add to a call."""
MAX_START = 150.0
"""Milliseconds that the launcher may add to the life of a short command."""
SCALARS = {f"train/{name}": 0.1 * number for number, name in enumerate("abcdefg")} | {"train/loss": 2.5}

BEGIN = {
    "wandb": (
        "import wandb; run = wandb.init(project='bench', mode='offline'); owner, name = type(run), 'log'\n"
        "call = lambda log, step: log(run, SCALARS, step=step)"
    ),
    "tensorboard": (
        "from torch.utils.tensorboard import SummaryWriter; writer = SummaryWriter('tb')\n"
        "owner, name = SummaryWriter, 'add_scalar'; call = lambda log, step: log(writer, 'train/loss', 2.5, step)"
    ),
    "tensorboardX": (
        "from tensorboardX import SummaryWriter; writer = SummaryWriter('tb')\n"
        "owner, name = SummaryWriter, 'add_scalar'; call = lambda log, step: log(writer, 'train/loss', 2.5, step)"
    ),
    "mlflow": (
        "import mlflow; from mlflow.entities import Metric; mlflow.set_tracking_uri('sqlite:///m.db')\n"
        "run, owner, name = mlflow.start_run(), mlflow.MlflowClient, 'log_batch'; client = owner()\n"
        "from mlflow.tracking._tracking_service.client import TrackingServiceClient as store\n"
        "store.log_batch = lambda *arguments, **named: None  # its 10 ms would hide what is measured\n"
        "call = lambda log, step: log(client, run.info.run_id, [Metric(n, v, 0, step) for n, v in SCALARS.items()])"
    ),
    "trackio": (
        "import trackio; run = trackio.init(project='bench', embed=False); owner, name = type(run), 'log'\n"
        "call = lambda log, step: log(run, SCALARS, step=step)"
    ),
}
CALLS = textwrap.dedent(
    """
    import json, os, sys, time
    SCALARS = json.loads(sys.argv[1])
    {begin}
    hooked = getattr(owner, name)
    times = {{True: [], False: []}}
    for step in range(2 * {calls}):
        is_hooked = step % 2 == 0
        log = hooked if is_hooked else hooked.__wrapped__
        began = time.perf_counter()
        call(log, step)
        times[is_hooked].append(time.perf_counter() - began)
    medians = [1e6 * sorted(each[{warm_up}:])[(len(each) - {warm_up}) // 2] for each in (times[True], times[False])]
    print("measured", *medians, flush=True)
    os._exit(0)
    """
)
KILLED = textwrap.dedent(
    """
    import time
    from tensorboardX import SummaryWriter
    writer = SummaryWriter("tb")
    for step in range(1_000_000):
        writer.add_scalar("train/loss", 2.5, step)
        print(step, flush=True)
        time.sleep(0.0005)
    """
)


def measure() -> Iterator[Row]:
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        for tracker in filter(find_spec, NUM_CALLS):
            yield _calls(tracker, running, Path(folder))
        yield _start_up(running, Path(folder))
    if find_spec("tensorboardX"):
        yield _lost()


def _launch(*command: str) -> list[str]:
    return [sys.executable, "-m", "lossguard", "launch", "--", *command]


def _environment(running: Sink, folder: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    ours = {"LOSSGUARD_URL": running.url, "LOSSGUARD_DIR": str(folder / "lossguard"), "PYTHONPATH": paths}
    cached = {"PYTHONPYCACHEPREFIX": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": ""}  # as an installed package
    return os.environ | ours | cached | {"WANDB_SILENT": "true", "TRACKIO_DIR": str(folder / "trackio")}


def _calls(tracker: str, running: Sink, folder: Path) -> Row:
    script = CALLS.format(begin=BEGIN[tracker], calls=NUM_CALLS[tracker], warm_up=WARM_UP)
    command = _launch(sys.executable, "-c", script, json.dumps(SCALARS))
    environment = _environment(running, folder)
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("measured")]
    assert found, ran.stderr
    with_hook, without = map(float, found[0])
    num_scalars = 1 if tracker.startswith("tensorboard") else len(SCALARS)
    name = f"added to a call of {tracker} ({num_scalars} scalar{'s' if num_scalars > 1 else ''}), median"
    return Row(
        name, with_hook - without, "us", MAX_ADDED, f"{with_hook:.1f} us with the hook, {without:.1f} us without it"
    )


def _start_up(running: Sink, folder: Path) -> Row:
    environment = _environment(running, folder)
    program = [sys.executable, "-c", "pass"]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * NUM_STARTS):
        is_launched = number % 2 == 0
        began = time.perf_counter()
        command = _launch(*program) if is_launched else program
        subprocess.run(command, env=environment, check=True, capture_output=True)
        seconds[is_launched].append(1e3 * (time.perf_counter() - began))
    launched, alone = median(seconds[True]), median(seconds[False])
    text = f"`python -c pass`: {launched:.0f} ms launched, {alone:.0f} ms alone"
    return Row("added to the life of a short command, median", launched - alone, "ms", MAX_START, text)


def _lost() -> Row:
    num_logged = num_lost = 0
    for number in range(NUM_KILLS):
        with sink() as running, tempfile.TemporaryDirectory() as folder:
            logged = _kill_once(200 + 100 * number, running, Path(folder))
            num_logged += logged
            num_lost += len(set(range(logged)) - running.steps())
    name = "lines lost after kill -9 of the training process"
    return Row(name, num_lost, "lines", 0.0, f"{num_logged} lines logged in {NUM_KILLS} killed processes")


def _kill_once(after: int, running: Sink, folder: Path) -> int:
    """Kill a launched process after about `after` lines: the lines that it logged."""
    command = _launch(sys.executable, "-c", KILLED)
    environment = _environment(running, folder)
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        line = next(line for line in launcher.stdout if int(line) >= after)
        note = next((folder / "lossguard" / ".launch").glob("*/child.json"))
        os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)
        return 1 + int([line, *launcher.stdout.read().splitlines()][-1])


if __name__ == "__main__":
    print_rows(measure())
