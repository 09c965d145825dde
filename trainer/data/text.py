"""Tokens as a person reads them."""

from torch import Tensor

from trainer.data.batch import Batch
from trainer.data.tokenizer import Tokenizer


def text(tokens_T: Tensor, tokenizer: Tokenizer, *, max_characters: int) -> str:
    """Text with a replacement character for what cannot be displayed; tokens of unknown text as their ids."""
    decoded = tokenizer.text(tokens_T.tolist())
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in decoded)[:max_characters]


def batch_text(batch: Batch, tokenizer: Tokenizer, *, max_characters: int = 200) -> str:
    """The beginning of the first row of a batch."""
    return text(batch.inputs_BT[0, :max_characters], tokenizer, max_characters=max_characters)
