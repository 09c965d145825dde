import math

import torch

from trainer.config import ModelConfig
from trainer.data.tokenizer import Bytes
from trainer.data.windows import PADDING, Batch
from trainer.model import GPT
from trainer.replay.excerpts import excerpt


def test_the_padding_of_a_row_is_neither_counted_nor_shown() -> None:
    """Every token costs the same, so that a mean over padding would choose the longer row."""
    model = GPT(ModelConfig(layers=1, heads=1, width=8, context=4))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    inputs = torch.tensor([[97, 98, 0, 0], [97, 98, 99, 100]])
    targets = torch.tensor([[98, 99, PADDING, PADDING], [98, 99, 100, 101]])
    shown = excerpt(model, Batch(3, inputs, targets), Bytes())
    assert (shown.row, shown.inputs, shown.targets) == (0, "ab", "bc")
    assert math.isclose(shown.loss, math.log(256), rel_tol=1e-6)
