"""The stacks of all processes of a command that hangs, taken with py-spy where it is installed."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SECONDS_EACH = 20.0


def write_stacks(pids: Iterable[int], file: Path) -> bool:
    """Write what `py-spy dump` shows of each process to `file`. Returns whether py-spy is there. Raises OSError."""
    beside = Path(sys.executable).with_name("py-spy")
    program = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if program is None:
        return False
    with file.open("w") as output:
        for pid in pids:
            output.write(f"process {pid}\n{_dump(program, pid)}\n")
            output.flush()
    return True


def _dump(program: str, pid: int) -> str:
    command = [program, "dump", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_EACH, check=False)
    except (OSError, subprocess.SubprocessError) as problem:
        return f"py-spy failed: {problem}"
    return done.stdout or f"py-spy: {done.stderr.strip()}"
