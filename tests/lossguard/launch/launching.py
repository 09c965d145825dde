"""Real processes of `lossguard launch`, for tests."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lossguard.launch.child import Child, Process
from tests.lossguard.collectors import FakeCollector
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
SECONDS = 120.0
"""Within which a step arrives or a command ends: Python alone takes long to start on a busy machine."""

FAKE_TRACKER = '''
class Run:
    """The part of trackio that the hook needs: it costs no second to import."""

    def __init__(self, project="fake-project", name="fake-run", config=None):
        self.project, self.name, self.config, self._next_step, self.logged = project, name, config or {}, 0, []

    def log(self, metrics, step=None):
        self.logged.append((metrics, step))
        return len(self.logged)
'''


@dataclass(frozen=True)
class Launching:
    """A place to launch commands in: a folder with the fake tracker, and a collector."""

    folder: Path
    collector: FakeCollector

    def __post_init__(self) -> None:
        package = self.fakes / "trackio"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("from trackio.run import Run\n")
        (package / "run.py").write_text(FAKE_TRACKER)

    @property
    def fakes(self) -> Path:
        """The folder of the fake tracker, on PYTHONPATH."""
        return self.folder / "fakes"

    def environment(self, **variables: str) -> dict[str, str]:
        """That of this process, without its settings of Lossguard; variables with an empty value are left out."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOSSGUARD_")}
        path = os.pathsep.join((str(self.fakes), str(ROOT)))
        ours = {
            "PYTHONPATH": path,
            "LOSSGUARD_URL": self.collector.url,
            "LOSSGUARD_DIR": str(self.folder / "lossguard"),
        }
        offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1"}
        return {name: value for name, value in (kept | ours | offline | variables).items() if value}

    def start(self, *command: str, options: tuple[str, ...] = (), **variables: str) -> "subprocess.Popen[str]":
        """A launcher that runs `command`."""
        return subprocess.Popen(
            [sys.executable, "-m", "lossguard", "launch", *options, "--", *command],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment(**variables),
        )

    def script(
        self, text: str, *arguments: str, options: tuple[str, ...] = (), **variables: str
    ) -> "subprocess.Popen[str]":
        """A launcher that runs a Python script."""
        path = self.folder / "train.py"
        path.write_text(text)
        return self.start(sys.executable, str(path), *arguments, options=options, **variables)

    def run(self, text: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> "Ended":
        """The same, to its end."""
        process = self.script(text, *arguments, options=options, **variables)
        out, err = process.communicate(timeout=SECONDS)
        return Ended(process.returncode, out, err)

    def first_pid(self) -> int:
        """The process of the command, as its launcher has noted it."""
        (note,) = self.folder.glob("lossguard/.launch/*/child.json")
        return int(json.loads(note.read_text())["pid"])

    def steps(self) -> set[int]:
        """The steps with a loss in the first two segments."""
        return {step for segment in range(2) for step in self.metric("loss", segment)}

    def wait_for_step(self, step: int) -> None:
        """Until the collector has this step of the first segment."""
        wait_for(lambda: (0, step) in self.collector.rows, seconds=SECONDS, what=f"step {step} at the collector")

    def metric(self, name: str, segment: int = 0) -> dict[int, object]:
        """The values of a metric that the collector has, by step."""
        with self.collector.lock:
            rows = sorted(self.collector.rows.items())
        return {step: row[name] for (number, step), row in rows if number == segment and name in row}


@dataclass(frozen=True)
class Ended:
    """How a launcher ended."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> str:
        """What stderr has beside the line at the start and the preview of the first rows."""
        lines = [line for line in self.err.splitlines(keepends=True) if "lossguard: watching run " not in line]
        preview = [number for number, line in enumerate(lines) if line.startswith("lossguard: the first ")]
        return "".join(lines[: preview[0]] if preview else lines)


def exit_code(child: Child) -> int:
    """Of a child of this process, once it has ended."""

    def ended() -> tuple[int] | None:
        code = child.ended()
        return None if code is None else (code,)

    return wait_for(ended, seconds=SECONDS, what="the end of the child")[0]


LEAVES_BEHIND = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is started from here ignores it, too
deaf = [sys.executable, "-c", "import os, time; open(f'{os.getpid()}.pid', 'w'); time.sleep(600)"]
subprocess.Popen(deaf)
subprocess.Popen(deaf, start_new_session=True)
for environment in (None, {}):
    if os.fork() == 0:  # a daemon, which nobody is the parent of
        os.setsid()
        if os.fork() == 0:
            subprocess.Popen(deaf, env=environment)
        os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
time.sleep(600)
"""
"""Starts four processes: a child, one in a session of its own, and two daemons, one without its environment."""


def left_behind(folder: Path) -> list[Process]:
    found = [Process.of(int(path.stem)) for path in folder.glob("*.pid")]
    return [each for each in found if each.started]
