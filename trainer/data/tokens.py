"""Where tokens come from: text as bytes, or the `.bin` shards of nanoGPT and llm.c.

A shard is a one-dimensional array of uint8 or uint16, memory-mapped where it is one file.
"""

import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserMistake

Shard = NDArray[np.uint8 | np.uint16]

LLMC_MAGIC = 20240520  # llm.c: 256 int32 (this number, a version, the number of tokens), then uint16 tokens
LLMC_HEADER_BYTES = 1024
LLMC_WIDE_MAGIC = 20240801  # llm.c's newer shards of uint32 tokens
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
SCANNED_TOKENS = 16_000_000  # tokens of a shard that are looked at before the run begins


def open_shards(path: str) -> list[Shard]:
    """The shards at `path` (see DataConfig.path) in the order of their names. Raises UserMistake."""
    if not path:
        return [_standard_library()]
    place = Path(path)
    try:
        if place.is_dir():
            return _open_folder(place)
        if place.suffix == ".bin":
            return [_open_bin(place)]
        return [_map(place, np.uint8)]
    except FileNotFoundError:
        raise UserMistake(f"There is no data at {path}: --data takes a text file, a folder or .bin shards.") from None
    except OSError as error:
        raise UserMistake(f"The data at {path} cannot be read: {error.strerror}.") from None


def check_vocabulary(shards: list[Shard], vocab_size: int) -> None:
    """Look through the head of every shard for a token id beyond the vocabulary. Raises UserMistake."""
    for shard in shards:
        check_ids(shard[:SCANNED_TOKENS], vocab_size)


def check_ids(tokens: NDArray[Any], vocab_size: int) -> None:
    largest = int(tokens.max()) if tokens.size else 0
    if largest >= vocab_size:
        raise UserMistake(
            f"The data holds the token id {largest}, beyond the vocabulary of {vocab_size}: "
            f"set model.vocab_size to {largest + 1} or more, or use the data that the vocabulary belongs to."
        )


@cache
def _standard_library() -> Shard:
    """The source of the running Python's standard library without its tests, about 12 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = [file.read_bytes() for file in _walk(root, "*.py")]
    if not texts:
        raise UserMistake(f"This Python keeps no source of its standard library in {root}: name a text with --data.")
    return _join(texts)


def _open_folder(folder: Path) -> list[Shard]:
    """Its `.bin` shards if it holds any, else every file that is no hidden one, as one text."""
    bins = sorted(folder.glob("*.bin"))
    if bins:
        return [_open_bin(file) for file in bins]
    return [_join([file.read_bytes() for file in _walk(folder, "*")])]


def _walk(root: Path, pattern: str) -> Iterator[Path]:
    """Files below `root`, ordered by their path's parts so that every file system gives the same order."""
    for file in sorted(root.rglob(pattern), key=lambda file: file.relative_to(root).parts):
        parts = file.relative_to(root).parts
        if file.is_file() and not LEFT_OUT.intersection(parts) and not any(part.startswith(".") for part in parts):
            yield file


def _join(texts: list[bytes]) -> Shard:
    joined: Shard = np.frombuffer(b"\n".join(texts), dtype=np.uint8)
    return joined


def _map(file: Path, dtype: type[np.uint8 | np.uint16], offset: int = 0) -> Shard:
    """An empty file cannot be mapped, and is an empty shard."""
    if file.stat().st_size <= offset:
        return np.zeros(0, dtype=dtype)
    return np.memmap(file, dtype=dtype, mode="r", offset=offset)


def _open_bin(file: Path) -> Shard:
    """llm.c's shards are known by the number they begin with; anything else is nanoGPT's raw uint16."""
    size = file.stat().st_size
    header = np.fromfile(file, dtype=np.int32, count=3)
    magic = int(header[0]) if len(header) == 3 else None
    if magic == LLMC_WIDE_MAGIC:
        raise UserMistake(f"{file} holds 32-bit tokens: only shards of uint16 can be read.")
    if magic == LLMC_MAGIC:
        expected = LLMC_HEADER_BYTES + 2 * int(header[2])
        if size != expected:
            raise UserMistake(f"{file} is damaged: its header announces {expected} bytes and it has {size}.")
        return _map(file, np.uint16, LLMC_HEADER_BYTES)
    if size % 2:
        raise UserMistake(f"{file} is no shard of uint16 tokens: it has an odd number of bytes ({size}).")
    return _map(file, np.uint16)
