"""Perplexities are compared between runs of one tokenizer alone, and a page that cannot know says so."""

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
    assert tokenizers.of(config) == found


def test_runs_of_one_tokenizer_compare() -> None:
    assert warning({"a": BYTES, "b": BYTES}) is None


def test_a_run_alone_is_compared_with_nothing() -> None:
    assert warning({"a": Vocabulary(None, None)}) is None


@pytest.mark.parametrize("other", [Vocabulary("gpt2", 256), Vocabulary("bytes", 512), Vocabulary(None, 512)])
def test_another_tokenizer_or_vocabulary_is_warned_of_with_both_named(other: Vocabulary) -> None:
    told = warning({"a": BYTES, "b": other})
    assert told is not None
    assert "do not compare" in told
    assert "bytes, 256 tokens" in told
    assert "not every run" not in told


def test_a_tokenizer_that_nobody_named_is_warned_of_too() -> None:
    told = warning({"a": BYTES, "b": Vocabulary(None, 256)})
    assert told is not None
    assert "not every run here says which one it uses" in told
    assert "tokenizer not named, 256 tokens" in told


def test_runs_of_one_vocabulary_are_named_together() -> None:
    told = warning({"a": BYTES, "b": Vocabulary("gpt2", 50257), "c": BYTES})
    assert told is not None
    assert "(a, c: bytes, 256 tokens; b: gpt2, 50,257 tokens)" in told
