"""Tokens as a person reads them."""

import numpy as np
from torch import Tensor

from trainer.data.batch import Batch


def text(tokens_T: Tensor, *, as_bytes: bool, max_characters: int) -> str:
    """Bytes as UTF-8, with a replacement character for what cannot be displayed; other tokens as their ids."""
    numbers = tokens_T.tolist()
    if not as_bytes:
        return " ".join(map(str, numbers))[:max_characters]
    decoded = np.array(numbers, dtype=np.uint8).tobytes().decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in decoded)[:max_characters]


def batch_text(batch: Batch, *, as_bytes: bool, max_characters: int = 200) -> str:
    """The beginning of the first row of a batch."""
    return text(batch.inputs_BT[0, :max_characters], as_bytes=as_bytes, max_characters=max_characters)
