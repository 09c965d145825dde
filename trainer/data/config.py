"""The settings of the data: the section `data` of a recipe."""

from dataclasses import dataclass

from trainer.errors import require, require_at_least

ROWS = ("packed", "documents", "paragraphs")


@dataclass(kw_only=True, slots=True, frozen=True)
class DataConfig:
    """The source of the tokens, and their order."""

    path: str = ""
    """A text file, a folder of text, a `.bin` shard or a folder of them, a Markov chain such as `markov:2,16`
    (trainer/data/markov.py); empty for the standard library's source."""
    batch_size: int = 16
    """Sequences per batch."""
    bytes_per_token: float = 0.0
    """Average bytes of text per token of `.bin` shards; 0 if unknown. In text files a token is a byte."""
    tokenizer: str = ""
    """Name of the tokenizer of the `.bin` shards, recorded because only perplexities of one tokenizer compare."""
    separator: int | None = None
    """Token id between the documents of `.bin` shards, such as 50256 for GPT-2; default: unknown."""
    held_out: float = 0.02
    """Share of the documents that is not trained on; of fewer than 20 documents, the last part of the tokens."""
    rows: str = "packed"
    """What a sequence may hold: `packed`, tokens across the ends of documents; `documents`, tokens of one document;
    `paragraphs`, of one paragraph of text (up to a blank line). Its rest is padding, which no loss counts."""
    max_windows: int = 0
    """Windows at the start of the training data that are trained on; 0 for all."""
    easy_first: bool = False
    """A curriculum: the windows of the run are sorted by their number of different tokens, fewest first."""
    curriculum_steps: int | None = None
    """Steps of the curriculum; default: the run's `steps`. Batches after them are in shuffled order."""

    def __post_init__(self) -> None:
        require_at_least("data.", self, 1, "batch_size")
        require_at_least("data.", self, 0, "bytes_per_token")
        enough = self.max_windows == 0 or self.max_windows >= self.batch_size
        require("data.max_windows", self.max_windows, enough, f"0, or data.batch_size = {self.batch_size} or more")
        require("data.held_out", self.held_out, 0.0 <= self.held_out < 1.0, "at least 0 and below 1")
        require("data.rows", self.rows, self.rows in ROWS, f"one of {', '.join(ROWS)}")
        if self.separator is not None:
            require_at_least("data.", self, 0, "separator")
        if self.curriculum_steps is not None:
            require_at_least("data.", self, 1, "curriculum_steps")
