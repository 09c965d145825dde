"""Checkpoint folders as the frameworks lay them out, with nothing in the files: for tests of the adapters."""

import json
import zipfile
from pathlib import Path


def megatron(folder: Path, *steps: int, latest: int | None = None) -> Path:
    for step in steps:
        path = folder / f"iter_{step:07d}"
        path.mkdir(parents=True)
        (path / "metadata.json").write_text("{}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(max(steps) if latest is None else latest))
    return folder


def torchtitan(folder: Path, *steps: int) -> Path:
    for step in steps:
        (folder / f"step-{step}").mkdir(parents=True)
        (folder / f"step-{step}" / ".metadata").touch()
    return folder


def hf(folder: Path, *steps: int) -> Path:
    for step in steps:
        path = folder / f"checkpoint-{step}"
        path.mkdir(parents=True)
        (path / "optimizer.pt").touch()
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def nanochat(folder: Path, *steps: int, ranks: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        (folder / f"model_{step:06d}.pt").touch()
        (folder / f"meta_{step:06d}.json").write_text("{}")
        for rank in range(ranks):
            with zipfile.ZipFile(folder / f"optim_{step:06d}_rank{rank}.pt", "w") as archive:
                archive.writestr("data", b"")
    return folder
