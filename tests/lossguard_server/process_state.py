"""Whether a process still runs, and which ones it has started (Linux)."""

from pathlib import Path

from tests.waiting import eventually


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it has ended, before the file was opened or before it was read
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> bool:
    return eventually(lambda: not alive(pid))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
