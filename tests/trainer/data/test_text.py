import numpy as np
import torch

from trainer.data.batch import Batch
from trainer.data.text import batch_text
from trainer.data.tokenizer import Bytes, Ids


def test_a_batch_is_shown_by_the_beginning_of_its_first_row() -> None:
    batch = Batch.of_windows(3, np.array([list(b"the cat sat"), list(b"other words")], dtype=np.int64))
    assert batch_text(batch, Bytes()) == "the cat sa"
    assert batch_text(batch, Bytes(), max_characters=3) == "the"
    assert batch_text(batch, Ids(None)) == " ".join(map(str, b"the cat sa"))


def test_bytes_that_are_no_text_are_replaced() -> None:
    batch = Batch(0, torch.tensor([[0xFF, 0x41, 0x07]]), torch.tensor([[0x41, 0x07, 0]]))
    assert batch_text(batch, Bytes()) == "\ufffdA\ufffd"
