"""Perplexities are comparable only between runs with the same tokenizer; otherwise the page warns."""

from typing import Any

import pytest

from dashboard.views.compare import tokenizers
from dashboard.views.compare.tokenizers import Vocabulary, warning

BYTES = Vocabulary("bytes", 256)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"tokenizer": "bytes", "model": {"vocab_size": 256}}, BYTES),
        ({"tokenizer": "bytes", "data": {"tokenizer": ""}, "vocab_size": 256}, BYTES),
        ({"data": {"tokenizer": "gpt2"}, "n_vocab": 50257}, Vocabulary("gpt2", 50257)),
        ({"tokenizer": None, "data": {"tokenizer": 3}}, Vocabulary(None, None)),
        ({"lr": 1e-3}, Vocabulary(None, None)),
    ],
)
def test_a_configuration_names_its_tokenizer_at_the_top_or_in_a_section(
    config: dict[str, Any], found: Vocabulary
) -> None:
    assert tokenizers.vocabulary_of(config) == found


def test_an_unknown_tokenizer_is_warned_of_too() -> None:
    text = warning({"a": BYTES, "b": Vocabulary(None, 256)})
    assert text is not None
    assert "not every run names its tokenizer" in text
    assert "tokenizer not named, 256 tokens" in text
