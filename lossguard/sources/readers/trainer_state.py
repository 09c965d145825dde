"""The file trainer_state.json of Hugging Face Trainer: all that was logged, written as a whole with each checkpoint.

The newest file of a run counts: after a resume it holds what the checkpoint had, and what came since. A loss is the
mean of the steps since the one before; the Trainer leaves NaN out of it unless `logging_nan_inf_filter` is off.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossguard.sources.columns import number_of, step_of
from lossguard.sources.files.line_format import identity_of
from lossguard.sources.files.source_files import files_below, read_beginning
from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.source_facts import MAX_STRIDE, SourceFacts

WHAT = "trainer_state.json of Hugging Face Trainer"
FILE = "trainer_state.json"
MAX_BYTES = 256 << 20
"""Maximum size of the file: a million logged steps are about 150 MB."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def places_in(path: Path) -> list[Path]:
    """The output folders of runs: those that hold such a file, or checkpoints that do."""
    files = files_below(path, FILE) if path.is_dir() else [path] if path.name == FILE and path.is_file() else []
    folders = {file.parent for file in files}
    return sorted({folder.parent if _CHECKPOINT.fullmatch(folder.name) else folder for folder in folders})


def newest_file(folder: Path) -> Path | None:
    """The file that was written last."""
    files = [*files_below(folder, FILE, deep=False), *files_below(folder, f"checkpoint-*/{FILE}", deep=False)]
    return max(files, key=lambda path: (path.stat().st_mtime_ns, path.stat().st_size), default=None)


def _read(path: Path) -> dict[str, Any] | None:
    """The file; None while it is being written, or if it is another thing. Raises OSError."""
    try:
        state = json.loads(read_beginning(path, MAX_BYTES))
    except (ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) else None


def rows_of(state: Mapping[str, Any], path: Path) -> list[Row]:
    """Return what was logged, a row for each step. Raises BadSource where the file has another form."""
    history = state.get("log_history")
    if not isinstance(history, list):
        raise BadSource(f"{path} cannot be read as the state of a Trainer: it has no list log_history")
    rows: list[Row] = []
    for entry in history:
        if not isinstance(entry, dict) or (step := step_of(entry.get("step"))) is None:
            continue
        values = {name: n for name, value in entry.items() if name != "step" and (n := number_of(value)) is not None}
        if rows and rows[-1].step == step:
            rows[-1].values.update(values)
        else:
            rows.append(Row(step, None, values))
    return rows


def facts_of(state: Mapping[str, Any]) -> SourceFacts:
    every = state.get("logging_steps")
    stride = int(every) if isinstance(every, int | float) and 1 <= every <= MAX_STRIDE else 1
    return SourceFacts(stride=stride, averaged=stride > 1, nan_filtered=True)


@dataclass(slots=True)
class TrainerStateFollower:
    """The rows of a run whose file is written again and again."""

    folder: Path
    joiner: Joiner
    _signature: tuple[Any, ...] = ()

    @property
    def facts(self) -> SourceFacts:
        path = newest_file(self.folder)
        with suppress(OSError):  # `poll` meets it again
            return facts_of((path and _read(path)) or {})
        return facts_of({})

    def poll(self, *, final: bool = False) -> Iterator[PlacedRow]:
        """The rows that are new. Raises OSError, and BadSource where the file has another form."""
        path = newest_file(self.folder)
        if path is None:
            return
        stat = path.stat()
        signature = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if signature == self._signature or (state := _read(path)) is None:
            return
        self._signature = signature
        rows = rows_of(state, path)
        self.joiner.begin_anew()
        now = time.monotonic()
        for index, row in enumerate(rows):
            yield from self.joiner.add(row, index, now)
        yield from self.joiner.flush(now, final=True)

    def close(self) -> None:
        self._signature = ()


follow = TrainerStateFollower


def runs_in(path: Path) -> Iterator[SourceRun]:
    for folder in places_in(path):
        file = newest_file(folder)
        if file is None:
            continue
        try:
            state = _read(file)
        except OSError as problem:
            raise BadSource(f"{file} cannot be read ({problem.strerror})") from None
        if state is None:
            raise BadSource(f"{file} cannot be read as the state of a Trainer: it is no JSON object")
        if not (rows := rows_of(state, file)):
            continue
        described = {name: value for name, value in state.items() if name not in ("log_history", "stateful_callbacks")}
        yield SourceRun(
            format="trainer_state",
            identity=identity_of(folder, json.dumps(state["log_history"][0]).encode()),
            name=folder.resolve().name,
            place=str(file),
            rows=lambda rows=rows: iter(rows),  # type: ignore[misc]
            config=described,
            facts=facts_of(state),
            total_steps=step_of(state.get("max_steps")) or None,
            ended_at=file.stat().st_mtime,
            size=len(rows),
        )
