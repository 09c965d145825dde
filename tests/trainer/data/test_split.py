from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import DataConfig
from trainer.data.split import BY_HASH, MIN_DOCUMENTS, NUM_BLOCKS, THE_END, rows_of, split, without_near_copies
from trainer.data.tokens import Shard
from trainer.errors import UsageError


def text(content: str) -> Shard:
    return np.frombuffer(content.encode(), dtype=np.uint8)


def contents(shards: list[Shard]) -> list[bytes]:
    return [shard.tobytes() for shard in shards]


def files(*contents: str) -> list[Shard]:
    """As a folder of them is read: the newline that separates two files belongs to the first."""
    return [*(text(each + "\n") for each in contents[:-1]), text(contents[-1])]


def lines(shards: list[Shard]) -> set[bytes]:
    return {content.removesuffix(b"\n") for content in contents(shards)}


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)


@settings(max_examples=20, deadline=None)
@given(st.lists(LINES, min_size=MIN_DOCUMENTS, max_size=40, unique=True), st.floats(0.01, 0.9))
def test_every_document_is_on_one_side_and_stays_there_when_others_come(texts: list[str], share: float) -> None:
    config = DataConfig(held_out=share)
    few, many = split(files(*texts[:MIN_DOCUMENTS]), config, 4), split(files(*texts), config, 4)
    assert few.chosen == many.chosen == BY_HASH
    assert not lines(many.train) & lines(many.held_out)
    usable = [document for document in few.held_out if len(document) > 1]  # in one byte, nothing can be predicted
    if len(usable) > 1:  # otherwise it may be the one that is held out in any case
        assert lines(few.held_out) <= lines(many.held_out)


def test_equal_documents_are_on_the_same_side() -> None:
    documents = files(*(f"document {number % 15}" for number in range(30)))
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        parts = split(documents, DataConfig(held_out=share), 4)
        assert not lines(parts.train) & lines(parts.held_out)


def test_a_near_copy_of_a_training_document_is_neither_trained_on_nor_evaluated() -> None:
    lines = [f"this is line number {number} of a long table" for number in range(40)]
    train = [text("\n".join(lines))]
    copy = text("\n".join([*lines[:30], "and some lines of its own"]))
    other = text("\n".join([*lines[:10], *(f"quite another text, line {number} of it" for number in range(40))]))
    assert without_near_copies([copy, other], train) == [other]
    assert without_near_copies([copy], train) == [copy], "all are, so there is nothing better"


def test_one_text_is_held_out_from_its_end_in_blocks_that_lose_no_target() -> None:
    parts = split([np.arange(250, dtype=np.uint8)] * 1, DataConfig(held_out=0.4), 1)
    assert parts.chosen == THE_END
    assert 1 < len(parts.held_out) <= 2 * NUM_BLOCKS
    targets = np.concatenate([block[1:] for block in parts.held_out])
    assert np.concatenate([parts.train[0], targets]).tolist() == list(range(250))


def test_shards_with_a_separator_are_held_out_from_a_document_start() -> None:
    END = 9
    shard = np.array([1, 2, 3, END] * 60, dtype=np.uint16)
    parts = split([shard], DataConfig(held_out=0.5, separator=END), 3)
    assert len(parts.train[0]) + sum(map(len, parts.held_out)) < len(shard), "the rest of a document is left out"
    assert all(document.tolist() == [1, 2, 3, END] for document in parts.held_out[:-1])
    (rows,) = {tuple(row) for row in rows_of([shard], DataConfig(rows="documents", separator=END))}
    assert rows == (1, 2, 3, END)


@pytest.mark.parametrize(("rows", "reason"), [("documents", "set data.separator"), ("paragraphs", "only text has")])
def test_shards_whose_documents_are_unknown_cannot_be_padded(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        rows_of([np.arange(9, dtype=np.uint16)], DataConfig(rows=rows))
