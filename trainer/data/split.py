"""Which documents are held out of the training: the same ones whatever the seed and the batch size are.

From 20 documents of text on, the hash of a document decides, so that equal files are on the same side and other files
never move. Otherwise (`.bin` shards, few files) the last windows of the data are held out, from the first document that
begins among them, if it is known where one does and half of them or more lie behind it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from trainer.config import DataConfig
from trainer.data.tokens import Shard, is_text
from trainer.data.windows import Windows
from trainer.errors import UsageError

MIN_DOCUMENTS = 20
"""Fewer documents are not split by their hashes, nor used as clusters."""
NUM_BLOCKS = 64
"""Consecutive parts of the held-out data that stand for documents where these are unknown, or too few."""
MIN_LINE_BYTES = 20
"""Shorter lines, such as `return None`, occur everywhere."""
MAX_COPIED = 0.5
"""A document with a larger share of its text in lines of training documents is a near copy."""
BY_HASH, THE_END = "documents chosen by their hash", "the end of the data"


@dataclass(kw_only=True, slots=True, frozen=True)
class Split:
    train: list[Shard]
    """Documents of text, or shards of tokens."""
    held_out: list[Shard]
    """Documents, or blocks of text whose documents are unknown; empty if nothing is held out."""
    chosen: str
    """BY_HASH or THE_END."""


def split(shards: list[Shard], config: DataConfig, context: int) -> Split:
    """The shards of `open_shards`, in documents that are trained on and documents that are held out."""
    if config.held_out == 0.0:
        return Split(train=shards, held_out=[], chosen=THE_END)
    if is_text(shards) and len(shards) >= MIN_DOCUMENTS:
        return _split_by_hash(shards, config.held_out)
    return _split_end(shards, config, context)


def _packed(shards: list[Shard]) -> list[Shard]:
    """The shards that windows are cut from: documents of text follow one another in a single one."""
    return [np.concatenate(shards)] if len(shards) > 1 and is_text(shards) else shards


def rows_of(train: list[Shard], config: DataConfig) -> list[Shard]:
    """The training data in parts that no window crosses, as `data.rows` says. Raises UsageError."""
    if config.rows == "packed":
        return _packed(train)
    if is_text(train):
        return train if config.rows == "documents" else [each for text in train for each in _paragraphs(text)]
    if config.rows == "paragraphs":
        raise UsageError("data.rows = 'paragraphs' cannot be used: only text has paragraphs, not .bin shards.")
    if config.separator is None:
        raise UsageError(
            "data.rows = 'documents' cannot be used with .bin shards whose separator is unknown: set data.separator to "
            "the token id between documents, such as 50256 for GPT-2."
        )
    return [document for shard in train for document in _documents_in(shard, config.separator)]


def _paragraphs(text: Shard) -> list[Shard]:
    """Up to and with the blank lines behind each."""
    return _cut(text, [blank.end() for blank in re.finditer(rb"\n\n+", text.tobytes())])


def _documents_in(shard: Shard, separator: int | None) -> list[Shard]:
    """A `.bin` shard cut behind every separator; the shard itself if the separator is unknown."""
    return [shard] if separator is None else _cut(shard, np.flatnonzero(shard == separator) + 1)


def _split_by_hash(documents: list[Shard], share: float) -> Split:
    places = [_place(document) for document in documents[:-1]]
    places.append(_place(np.append(documents[-1], np.uint8(ord("\n")))))  # as if others came behind it
    usable = [place for document, place in zip(documents, places, strict=True) if len(document) > 1]
    bound = max(share, min(usable, default=0.0) + 2**-53)  # one document at least
    held_out = [document for document, place in zip(documents, places, strict=True) if place < bound]
    train = [document for document, place in zip(documents, places, strict=True) if place >= bound]
    return Split(train=train, held_out=without_near_copies(held_out, train), chosen=BY_HASH)


def _place(document: Shard) -> float:
    """A number in [0, 1) that depends on the content alone."""
    return int.from_bytes(blake2b(document.tobytes(), digest_size=6).digest(), "big") / 2**48


def without_near_copies(held_out: list[Shard], train: list[Shard]) -> list[Shard]:
    """The held-out documents that are not near copies of training documents; all of them if all are."""
    lines = [[line for line in _lines(document) if len(line) >= MIN_LINE_BYTES] for document in held_out]
    sought = {line for each in lines for line in each}
    known = {line for document in train for line in _lines(document) if line in sought}
    shares = [sum(len(line) for line in each if line in known) / max(1, sum(map(len, each))) for each in lines]
    others = [document for document, share in zip(held_out, shares, strict=True) if share <= MAX_COPIED]
    return others if _num_targets(others) else held_out


def _lines(document: Shard) -> list[bytes]:
    return [line.strip() for line in document.tobytes().split(b"\n")]


def _split_end(shards: list[Shard], config: DataConfig, context: int) -> Split:
    starts = list(accumulate(map(len, shards)))[:-1] if is_text(shards) else None
    shards = _packed(shards)
    windows = Windows(shards, context)
    first = len(windows) - max(1, round(len(windows) * config.held_out))
    if first <= 0:
        return Split(train=[], held_out=shards, chosen=THE_END)
    number, begin = windows.place(first)
    train = [*shards[:number], shards[number][: begin + 1]]
    if starts is None:
        last = [_documents_in(each, config.separator) for each in (shards[number][begin:], *shards[number + 1 :])]
    else:
        train = _cut(train[0], [start for start in starts if start <= begin])
        last = [_cut(shards[0][begin:], [start - begin for start in starts if start > begin])]
    documents = [document for each in last for document in each]
    # The first one began in the training data. Without it, a small file at the end would be all that is evaluated.
    behind = documents[1:] if len(last[0]) > 1 else documents
    if 2 * _num_targets(behind) >= _num_targets(documents):
        documents = behind
    return Split(train=train, held_out=_in_blocks(documents, context), chosen=THE_END)


def _num_targets(documents: list[Shard]) -> int:
    return sum(len(document) - 1 for document in documents)


def _cut(shard: Shard, starts: Sequence[int] | NDArray[np.int64]) -> list[Shard]:
    return [part for part in np.split(shard, starts) if len(part)]


def _in_blocks(documents: list[Shard], context: int) -> list[Shard]:
    """The documents; if there are few, cut into about NUM_BLOCKS parts (each begins with the last token of another)."""
    if len(documents) >= MIN_DOCUMENTS:
        return documents
    num_windows = len(Windows(documents, context, padded=True))
    length = max(1, round(num_windows / NUM_BLOCKS)) * context
    return [
        document[start : start + length + 1] for document in documents for start in range(0, len(document) - 1, length)
    ]
