"""W&B offline runs: the transaction log `run-ID.wandb` in `wandb/offline-run-*` (and in `wandb/run-*`, of online ones).

The log is framed like a log of LevelDB; its records are messages whose description comes with the `wandb` package.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lossguard.sources.columns import number_of, step_of
from lossguard.sources.files.line_format import files_in, has_magic
from lossguard.sources.files.source_files import opened
from lossguard.sources.rows import StoredScalar, joined
from lossguard.sources.source_run import BadSource, SourceRun, needed
from lossguard.vocabulary.protocol import NON_FINITE, is_time
from lossguard.vocabulary.source_facts import facts_of
from lossguard.vocabulary.states import RunState

WHAT = "W&B offline runs"
SUFFIX = ".wandb"
MAGIC = b":W&B"
FILE_HEADER = 7
"""Bytes before the first record: MAGIC, two more, and the version of the framing."""
BLOCK = 32768
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_RECORD = 4 << 20
"""Maximum bytes of a record that is read; a longer one is passed over. A thousand values take about 50 kB."""
OWN_NAMES = "_"
"""Prefix of what W&B itself adds."""


def runs_in(path: Path) -> Iterator[SourceRun]:
    files = [file for file in files_in(path, (SUFFIX,)) if has_magic(file, MAGIC)]
    if files:
        messages = needed("wandb.proto.wandb_internal_pb2", "wandb", WHAT)
        for file in files:
            yield _run(file, messages)


def _run(path: Path, messages: Any) -> SourceRun:
    """Its rows are not kept, but the log must be read whole: the configuration may change to the end."""
    run: Any = None
    exit_code: int | None = None
    config: dict[str, Any] = {}
    size = 0
    try:
        for record in _records(path, messages):
            match record.WhichOneof("record_type"):
                case "run":
                    run = record.run
                    config |= _items(record.run.config.update)
                case "config":
                    config |= _items(record.config.update)
                    for item in record.config.remove:
                        config.pop(_name(item), None)
                case "exit":
                    exit_code = record.exit.exit_code
                case "history":
                    size += 1
    except BadSource:  # its rows end there, too, and say why
        if run is None:
            raise
    if run is None:
        raise BadSource(f"{path} does not say which run it is: it is cut off at its beginning")
    return SourceRun(
        format="wandb",
        identity="/".join((run.entity, run.project, run.run_id)),
        name=run.display_name or run.run_id,
        place=f"{path}, run {run.run_id}",
        rows=lambda: joined(_scalars(path, messages)),
        project=run.project or None,
        config={name: value for name, value in config.items() if not name.startswith(OWN_NAMES)},
        tags=list(run.tags),
        started_at=run.start_time.ToMicroseconds() / 1e6 or None,
        state=RunState.INTERRUPTED if exit_code is None else RunState.FAILED if exit_code else RunState.FINISHED,
        host=run.host or None,
        git_commit=run.git.commit or None,
        facts=facts_of(config),
        size=size,
        part=str(path.resolve()),
    )


GLOBAL_STEPS = ("train/global_step", "trainer/global_step", "global_step")
"""Names under which Hugging Face Trainer and Lightning log the optimizer step: W&B's own step is a count of calls. The
hook on wandb takes these, too, so that a run has one step axis."""


def _scalars(path: Path, messages: Any) -> Iterator[StoredScalar]:
    for record in _records(path, messages):
        if record.WhichOneof("record_type") == "history":
            items = _items(record.history.item)
            calls = step_of(items.pop("_step", record.history.step.num))
            named = next((name for name in GLOBAL_STEPS if step_of(items.get(name)) is not None), None)
            step = calls if named is None else step_of(items.pop(named))
            time = items.pop("_timestamp", 0.0)
            for name, value in items.items():
                number = number_of(value)
                if number is not None and step is not None and not name.startswith(OWN_NAMES):
                    yield StoredScalar(float(time) if is_time(time) else 0.0, step, name, number)


def _items(items: Sequence[Any]) -> dict[str, Any]:
    """Name -> value. Numbers that are not finite are written as NaN or as texts."""
    found = {}
    for item in items:
        if not (text := item.value_json):
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue  # what W&B does not write
        found[_name(item)] = NON_FINITE.get(value, value) if isinstance(value, str) else value
    return found


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _records(path: Path, messages: Any) -> Iterator[Any]:
    for data in _framed(path):
        record = messages.Record()
        try:
            record.ParseFromString(data)
        except Exception as error:  # DecodeError of protobuf, which only wandb brings
            why = "it is damaged, or of a newer wandb (pip install -U wandb)"
            raise BadSource(f"{path} has a record that cannot be read ({type(error).__name__}): {why}") from None
        yield record


def _framed(path: Path) -> Iterator[bytes]:
    """Yield the records of at most MAX_RECORD bytes. A last one that was not written whole ends them.

    Raises BadSource for a chunk that reaches beyond its block, and for one that continues nothing.
    """
    at = FILE_HEADER
    parts: bytearray | None = None  # of the record that has begun
    with opened(path) as file:
        file.seek(at)
        while True:
            left = BLOCK - at % BLOCK
            if left < CHUNK_HEADER.size:  # the rest of a block is zeros
                at, left = file.seek(at + left), BLOCK
            head = file.read(CHUNK_HEADER.size)
            if len(head) < CHUNK_HEADER.size:
                return
            _, length, kind = CHUNK_HEADER.unpack(head)
            chunk = file.read(length)
            if kind == 0 or len(chunk) < length:
                return
            if kind in (FULL, FIRST):
                parts = bytearray()
            if parts is None or kind > LAST or CHUNK_HEADER.size + length > left:
                raise BadSource(f"{path} is no log of W&B behind byte {at}: a record is damaged")
            at += CHUNK_HEADER.size + length
            if len(parts) <= MAX_RECORD:
                parts += chunk
            if kind in (FULL, LAST):
                if len(parts) <= MAX_RECORD:
                    yield bytes(parts)
                parts = None
