"""The source of tokens: text as bytes, the `.bin` shards of nanoGPT and llm.c, or a Markov chain.

A shard is a one-dimensional array of uint8 (text: one document) or uint16 (one `.bin` file), memory-mapped if it is the
only one.
"""

import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.markov import open_chain, stream
from trainer.errors import UsageError

Shard = NDArray[np.uint8 | np.uint16]

LLMC_MAGIC = 20240520  # llm.c: 256 int32 (this number, a version, the number of tokens), then uint16 tokens
LLMC_HEADER_BYTES = 1024
LLMC_WIDE_MAGIC = 20240801  # llm.c's newer shards of uint32 tokens
EXCLUDED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
MAX_SCANNED_TOKENS = 16_000_000  # of a shard, checked before the run begins


def open_shards(path: str) -> list[Shard]:
    """The shards at `path` (see DataConfig.path) in the order of their names, one a file. Raises UsageError."""
    if not path:
        return list(_standard_library())
    if (chain := open_chain(path)) is not None:
        return [stream(chain)]
    place = Path(path)
    try:
        if place.is_dir():
            if bins := sorted(place.glob("*.bin")):
                return [_open_bin(file) for file in bins]
            return _documents([file.read_bytes() for file in _walk(place, "*")])  # all files that are not hidden
        if place.suffix == ".bin":
            return [_open_bin(place)]
        return [_map(place, np.uint8)]
    except FileNotFoundError:
        raise UsageError(f"There is no data at {path}: --data takes a text file, a folder or .bin shards.") from None
    except OSError as error:
        raise UsageError(f"The data at {path} cannot be read: {error.strerror}.") from None


def is_text(shards: Sequence[Shard]) -> bool:
    """Return True if a token is a byte of text."""
    return all(shard.dtype == np.uint8 for shard in shards)


def check_vocabulary(shards: list[Shard], vocab_size: int) -> None:
    """Check the first tokens of every shard for ids outside the vocabulary. Raises UsageError."""
    for shard in shards:
        check_ids(shard[:MAX_SCANNED_TOKENS], vocab_size)


def check_ids(tokens: NDArray[Any], vocab_size: int) -> None:
    """Raises UsageError for a token id outside the vocabulary."""
    largest = int(tokens.max()) if tokens.size else 0
    if largest >= vocab_size:
        raise UsageError(
            f"The data contains the token id {largest}, outside the vocabulary of {vocab_size}: "
            f"set model.vocab_size to {largest + 1} or more, or use data with the right vocabulary."
        )


@cache
def _standard_library() -> tuple[Shard, ...]:
    """The source of the running Python's standard library without its tests, about 12 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = [file.read_bytes() for file in _walk(root, "*.py")]
    if not texts:
        raise UsageError(f"This Python has no source of its standard library in {root}: give a text with --data.")
    return tuple(_documents(texts))


def _walk(root: Path, pattern: str) -> Iterator[Path]:
    """Files below `root`, in the same order on every file system."""
    for file in sorted(root.rglob(pattern), key=lambda file: file.relative_to(root).parts):
        parts = file.relative_to(root).parts
        if file.is_file() and not EXCLUDED.intersection(parts) and not any(part.startswith(".") for part in parts):
            yield file


def _documents(texts: list[bytes]) -> list[Shard]:
    """Texts as documents; all but the last get a newline at their end, which separates them where they are joined."""
    ends = [b"\n"] * (len(texts) - 1) + [b""]
    return [np.frombuffer(text + end, dtype=np.uint8) for text, end in zip(texts, ends, strict=False)]


def _map(file: Path, dtype: type[np.uint8 | np.uint16], offset: int = 0) -> Shard:
    """The content of a file from `offset` on; an empty file, which cannot be mapped, is an empty shard."""
    if file.stat().st_size <= offset:
        return np.zeros(0, dtype=dtype)
    return np.memmap(file, dtype=dtype, mode="r", offset=offset)


def _open_bin(file: Path) -> Shard:
    """llm.c's shards begin with a magic number; anything else is nanoGPT's raw uint16."""
    size = file.stat().st_size
    header = np.fromfile(file, dtype=np.int32, count=3)
    magic = int(header[0]) if len(header) == 3 else None
    if magic == LLMC_WIDE_MAGIC:
        raise UsageError(f"{file} contains 32-bit tokens: only shards of uint16 can be read.")
    if magic == LLMC_MAGIC:
        expected = LLMC_HEADER_BYTES + 2 * int(header[2])
        if size != expected:
            raise UsageError(f"{file} is damaged: according to its header it has {expected} bytes, but it has {size}.")
        return _map(file, np.uint16, LLMC_HEADER_BYTES)
    if size % 2:
        raise UsageError(f"{file} is not a shard of uint16 tokens: it has an odd number of bytes ({size}).")
    return _map(file, np.uint16)


def characters_per_byte(shards: list[Shard]) -> float:
    """Characters per byte of UTF-8 text, over all shards: each byte but a continuation (0b10xxxxxx) begins one."""
    begun = sum(int(np.count_nonzero((shard & 0xC0) != 0x80)) for shard in shards)
    return begun / sum(map(len, shards))
