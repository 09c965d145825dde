"""Text as tokens, and tokens as people read them: bytes, byte pairs learnt from the text, or ids of `.bin` shards.

python -m trainer run --tokenizer bpe:4096          (needs `pip install tokenizers`)
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.tokens import Shard
from trainer.data.windows import Batch
from trainer.errors import UsageError, require

BPE = re.compile(r"bpe:(\d+)")
NUM_BYTES = 256


class Bytes:
    """A token is a byte of UTF-8."""

    name: str | None = "bytes"
    """Name, as the configuration records it."""
    is_of_text = True
    """Whether text can be encoded."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def show(self, token: int) -> str:
        """One token, as people read it."""
        return repr(bytes([token]))[2:-1] if token < NUM_BYTES else str(token)

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens in a row."""
        return bytes(token for token in tokens if token < NUM_BYTES).decode("utf-8", "replace")


class Ids:
    """Tokens of shards whose text is unknown: whole numbers."""

    is_of_text = False

    def __init__(self, name: str | None) -> None:
        self.name = name
        """None if it is unknown."""

    def encode(self, text: str) -> list[int]:
        """Raises UsageError."""
        try:
            return [int(word) for word in text.split()]
        except ValueError:
            raise UsageError(
                f"The prompt {text!r} cannot be used: for shards of tokens a prompt is a list of ids, whole numbers "
                "separated by spaces."
            ) from None

    def show(self, token: int) -> str:
        return str(token)

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


class BytePairs:
    """Byte-level BPE (Sennrich et al. 2016; bytes: Radford et al. 2019), learnt from the training text of the run."""

    is_of_text = True

    def __init__(self, trained: Any, size: int) -> None:
        self._trained = trained
        self.name: str | None = f"bpe:{size}"
        self.byte_lengths: NDArray[np.int64] = np.array(
            [len(trained.id_to_token(token) or "") for token in range(size)]  # a character stands for a byte
        )

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self._trained.encode(text).ids
        return tokens

    def encode_all(self, texts: Sequence[Shard]) -> list[Shard]:
        """Documents of bytes as documents of tokens; what is no UTF-8 becomes a replacement character."""
        encoded = self._trained.encode_batch([_decoded(text) for text in texts])
        return [np.array(each.ids, dtype=np.uint16) for each in encoded]

    def to_json(self) -> str:
        """Undone by `from_json`."""
        pairs: str = self._trained.to_str()
        return pairs

    @classmethod
    def from_json(cls, pairs: str) -> "BytePairs":
        """Raises UsageError."""
        trained = _package().Tokenizer.from_str(pairs)
        return cls(trained, trained.get_vocab_size())

    def show(self, token: int) -> str:
        return self.text([token])

    def text(self, tokens: Sequence[int]) -> str:
        text: str = self._trained.decode(list(tokens))
        return text

    def bytes_per_token(self, tokens: NDArray[np.int64]) -> float:
        """The mean over these tokens; those below 0 (padding) do not count."""
        counted = tokens[tokens >= 0]
        return float(self.byte_lengths[counted].mean())


Tokenizer = Bytes | Ids | BytePairs
"""The tokens of a run."""


def byte_pair_size(name: str) -> int | None:
    """4096 of `bpe:4096`; None of any other name."""
    match = BPE.fullmatch(name)
    return int(match[1]) if match else None


_learnt: dict[tuple[bytes, int], BytePairs] = {}


def learn_byte_pairs(texts: Sequence[Shard], size: int) -> BytePairs:
    """Learn `size` tokens from these documents; the same documents give the same tokens. Raises UsageError."""
    require("data.tokenizer", f"bpe:{size}", size >= NUM_BYTES, f"bpe:{NUM_BYTES} or more: each byte is a token")
    key = blake2b(b"\0".join(text.tobytes() for text in texts), digest_size=16).digest(), size
    if key not in _learnt:  # a lab trains several recipes on one text
        package = _package()
        trained = package.Tokenizer(package.models.BPE())
        trained.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = package.decoders.ByteLevel()
        alphabet = package.pre_tokenizers.ByteLevel.alphabet()
        trainer = package.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        trained.train_from_iterator(map(_decoded, texts), trainer)
        _learnt[key] = BytePairs(trained, size)
    return _learnt[key]


def _package() -> Any:
    """Raises UsageError."""
    try:
        import tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UsageError("Byte pairs need the package tokenizers: install it with pip install tokenizers.") from None
    return tokenizers


def _decoded(text: Shard) -> str:
    return text.tobytes().decode("utf-8", "replace")


def printable(tokens_T: Tensor, tokenizer: Tokenizer, *, max_characters: int) -> str:
    """Text with a replacement character for what cannot be displayed; tokens of unknown text as their ids."""
    decoded = tokenizer.text(tokens_T.tolist())
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in decoded)[:max_characters]


def batch_text(batch: Batch, tokenizer: Tokenizer, *, max_characters: int = 200) -> str:
    """The beginning of the first row of a batch."""
    return printable(batch.inputs_BT[0, :max_characters], tokenizer, max_characters=max_characters)
