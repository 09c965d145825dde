"""The evaluation set: windows of held-out documents, the same ones for every seed and batch size."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from trainer.data.shuffle import Shuffle
from trainer.data.tokens import Shard, check_ids
from trainer.data.windows import Batch, Windows


class HeldOut:
    """At most `num_windows` windows: of every document as many as of any other, as far as it has them.

    The documents are cut from their beginning, and the last window of each is padded: no window crosses into another
    document, and no token is a target twice.
    """

    def __init__(
        self, documents: Sequence[Shard], context: int, *, num_windows: int, vocab_size: int, chosen: str = ""
    ) -> None:
        """`chosen`: how the documents were, see Split."""
        documents = _spread([document for document in documents if len(document) > 1], num_windows)
        self.windows = Windows(documents, context, padded=True)
        self.vocab_size = vocab_size
        self.chosen = chosen
        self.numbers = _choose(self.windows.counts, num_windows)
        self.documents = self.windows.shards_of(self.numbers)
        """Position of the document of each window."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def whole_windows(self) -> NDArray[np.int64]:
        """The numbers of all windows without padding, also of those that are not evaluated, document by document."""
        lengths = [max(0, (len(document) - 1) // self.windows.context) for document in self.windows.shards]
        firsts = np.cumsum([0, *self.windows.counts[:-1]])
        return np.concatenate([first + np.arange(length) for first, length in zip(firsts, lengths, strict=True)])

    @property
    def num_documents(self) -> int:
        return len(self.windows.shards)

    def batches(self, num_rows: int) -> Iterator[Batch]:
        """Every window once, `num_rows` at a time; the last batch may be smaller. Raises UsageError."""
        for index, first in enumerate(range(0, len(self), num_rows)):
            tokens = self.windows.take(self.numbers[first : first + num_rows])
            check_ids(tokens, self.vocab_size)
            yield Batch.of_windows(index, tokens)

    def digest(self) -> str:
        """Equal where two evaluations are of the same tokens in the same windows."""
        tokens = self.windows.take(self.numbers)
        return sha256(f"{tokens.shape}".encode() + tokens.tobytes()).hexdigest()[:16]


def _spread(documents: list[Shard], count: int) -> list[Shard]:
    """At most `count` documents, at equal distances."""
    if len(documents) <= count:
        return documents
    return [documents[number * len(documents) // count] for number in range(count)]


def _choose(counts: list[int], num_windows: int) -> NDArray[np.int64]:
    """The numbers of the chosen windows, in order: first one of every document, then a second one, and so on."""
    orders = [Shuffle(count, 0, document)(np.arange(count)) for document, count in enumerate(counts)]
    return np.sort(np.argsort(np.concatenate([np.empty(0, np.int64), *orders]), kind="stable")[:num_windows])
