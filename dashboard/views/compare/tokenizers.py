"""The tokenizer of a run, according to its configuration, and whether perplexities are comparable. Pure.

Loss and perplexity are per token, and a token of another tokenizer covers another amount of text. They are comparable
only between runs with the same tokenizer; bits per byte are comparable on the same text with any tokenizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dashboard import formatting
from lossguard.vocabulary.run_search import flattened

TOKENIZER_KEYS = ("tokenizer", "tokenizer_name", "tokenizer_path", "encoding")
SIZE_KEYS = ("vocab_size", "vocabulary_size", "n_vocab")
"""Last parts of the configuration keys that hold the tokenizer and the size of its vocabulary."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokenizer: str | None
    """Name of the tokenizer; None if the configuration names none."""
    size: int | None

    def __str__(self) -> str:
        name = "tokenizer not named" if self.tokenizer is None else self.tokenizer
        return name if self.size is None else f"{name}, {formatting.short_count(self.size)} tokens"


def vocabulary_of(config: Mapping[str, Any]) -> Vocabulary:
    flat = flattened(config)
    names = [value for value in _values(flat, TOKENIZER_KEYS) if isinstance(value, str) and value]
    sizes = [value for value in _values(flat, SIZE_KEYS) if isinstance(value, int) and not isinstance(value, bool)]
    return Vocabulary(names[0] if names else None, sizes[0] if sizes else None)


def warning(runs: Mapping[str, Vocabulary]) -> str | None:
    """Return why perplexities of these runs (label -> vocabulary) may not be comparable; None if they are."""
    if len(runs) < 2:
        return None
    summary = _summary(runs)
    if len({each.size for each in runs.values() if each.size is not None}) > 1 or (
        len({each.tokenizer for each in runs.values() if each.tokenizer is not None}) > 1
    ):
        return (
            "**Perplexities of different tokenizers are not comparable**, and neither are losses per token "
            f"({summary}). Bits per byte are comparable on the same text."
        )
    if any(each.tokenizer is None for each in runs.values()):
        return (
            f"**Perplexities of different tokenizers are not comparable**, and not every run names its tokenizer "
            f"({summary}). Record `tokenizer` and `vocab_size` in the configuration. "
            "Bits per byte are always comparable on the same text."
        )
    return None


def _summary(runs: Mapping[str, Vocabulary]) -> str:
    """Return each vocabulary, after the runs that use it."""
    labels: dict[str, list[str]] = {}
    for label, each in runs.items():
        labels.setdefault(formatting.escape_markdown(str(each)), []).append(formatting.escape_markdown(label))
    return "; ".join(f"{', '.join(names)}: {vocabulary}" for vocabulary, names in labels.items())


def _values(flat: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """The values under keys that end in one of these names, outer sections first."""
    keys = sorted((key for key in flat if key.rpartition(".")[2] in names), key=lambda key: key.count("."))
    return [flat[key] for key in keys]
