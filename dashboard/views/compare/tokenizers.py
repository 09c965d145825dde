"""Which tokenizer a run uses, as far as its configuration tells, and whether perplexities compare. Pure.

Loss and perplexity are per token. A token of another tokenizer is another amount of text, so that these numbers compare
between runs with the same tokenizer alone; bits per byte compare on the same text, whatever its tokens are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dashboard import formatting
from dashboard.data.configurations import flattened

TOKENIZERS = ("tokenizer", "tokenizer_name", "tokenizer_path", "encoding")
SIZES = ("vocab_size", "vocabulary_size", "n_vocab")
"""The last part of the keys of a configuration that tell it."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokenizer: str | None
    """None when the configuration names none."""
    size: int | None

    def __str__(self) -> str:
        name = "tokenizer not named" if self.tokenizer is None else self.tokenizer
        return name if self.size is None else f"{name}, {self.size:,} tokens"


def of(config: Mapping[str, Any]) -> Vocabulary:
    flat = flattened(config)
    named = [value for value in _under(flat, TOKENIZERS) if isinstance(value, str) and value]
    sizes = [value for value in _under(flat, SIZES) if isinstance(value, int) and not isinstance(value, bool)]
    return Vocabulary(named[0] if named else None, sizes[0] if sizes else None)


def warning(runs: Mapping[str, Vocabulary]) -> str | None:
    """Why the perplexities of these runs (label -> vocabulary) do not compare, or may not; None when they do."""
    if len(runs) < 2:
        return None
    told = _told(runs)
    if len({each.size for each in runs.values() if each.size is not None}) > 1 or (
        len({each.tokenizer for each in runs.values() if each.tokenizer is not None}) > 1
    ):
        return (
            f"**Perplexities of different tokenizers do not compare**, and neither do losses per token ({told}). "
            "Bits per byte compare, on the same text."
        )
    if any(each.tokenizer is None for each in runs.values()):
        return (
            f"**Perplexities of different tokenizers do not compare**, and not every run here says which one it uses "
            f"({told}). A configuration tells it with `tokenizer` and `vocab_size`. "
            "Bits per byte compare in any case, on the same text."
        )
    return None


def _told(runs: Mapping[str, Vocabulary]) -> str:
    """Each vocabulary with the runs that have it."""
    labels: dict[str, list[str]] = {}
    for label, each in runs.items():
        labels.setdefault(formatting.escape_markdown(str(each)), []).append(formatting.escape_markdown(label))
    return "; ".join(f"{', '.join(those)}: {name}" for name, those in labels.items())


def _under(flat: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """What the configuration has under these names, its outer sections first."""
    keys = sorted((key for key in flat if key.rpartition(".")[2] in names), key=lambda key: key.count("."))
    return [flat[key] for key in keys]
