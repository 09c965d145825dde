import math
import xml.etree.ElementTree as ET

import pytest
import torch
from torch.nn import functional

from trainer.config import ModelConfig
from trainer.data.tokenizer import Bytes
from trainer.errors import UsageError
from trainer.model import GPT
from trainer.pipeline import MAX_POSITIONS, draw, follow


def test_the_picture_follows_a_text_from_its_bytes_to_the_loss_of_the_model() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(layers=2, heads=2, width=16, context=16)).eval()
    followed = follow(model, Bytes(), "def f(x)")
    tokens = torch.tensor([list(b"def f(x)")])
    loss = functional.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:])
    assert followed.loss == pytest.approx(loss.item(), rel=1e-5)
    rows = {stage.title: stage.values for stage in followed.stages}
    assert rows["token ids"] == [str(token) for token in b"def f(x"]
    assert rows["target"] == ["e", "f", "\u00b7", "f", "(", "x", ")"]
    assert {"embedding", "block 1", "block 2", "softmax", "loss"} <= rows.keys()
    assert float(rows["P(target)"][0]) == pytest.approx(math.exp(-followed.losses[0]), rel=5e-3)
    texts = [element.text for element in ET.fromstring(draw(followed, "a <title>")).iter() if element.text]
    assert "a <title>" in texts
    assert f"mean loss {followed.loss:.3f} nats per token, perplexity {math.exp(followed.loss):.2f}" in texts


def test_a_long_text_is_cut_and_a_short_one_refused() -> None:
    model = GPT(ModelConfig(layers=1, heads=1, width=8, context=64)).eval()
    assert len(follow(model, Bytes(), "x" * 99).losses) == MAX_POSITIONS
    with pytest.raises(UsageError, match="too short"):
        follow(model, Bytes(), "x")
