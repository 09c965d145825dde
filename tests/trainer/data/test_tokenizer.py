from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.small import TEXT, small_recipe
from trainer.components import build_components
from trainer.config import DataConfig, ModelConfig, Recipe
from trainer.data.tokenizer import Bytes, Ids, batch_text, byte_pair_size, learn_byte_pairs
from trainer.data.windows import Batch
from trainer.errors import UsageError
from trainer.train import Job, train

LINES = [np.frombuffer(line + b"\n", dtype=np.uint8) for line in TEXT.splitlines()]


def test_byte_pairs_give_the_text_back_and_know_their_bytes() -> None:
    pairs = learn_byte_pairs(LINES, 280)
    text = "99 bottles of beer, \u00e9t\u00e9\n"
    tokens = pairs.encode(text)
    assert len(tokens) < len(text)
    assert pairs.text(tokens) == text
    assert pairs.byte_lengths[tokens].sum() == len(text.encode())
    assert max(tokens) < 280 == len(pairs.byte_lengths)
    assert pairs.bytes_per_token(np.array([*tokens, -100])) == pytest.approx(len(text.encode()) / len(tokens))


def test_the_same_text_gives_the_same_tokens_and_another_text_or_size_others() -> None:
    first, second = (learn_byte_pairs(lines, 280) for lines in (LINES, [line.copy() for line in LINES]))
    assert first.encode(TEXT.decode()) == second.encode(TEXT.decode())
    more, other = learn_byte_pairs(LINES, 290), learn_byte_pairs(LINES[:1], 280)
    assert (more.name, len(more.byte_lengths)) == ("bpe:290", 290)
    assert other.to_json() != first.to_json() != more.to_json()


def _recipe(folder: Path, tokenizer: str = "", rows: str = "packed") -> Recipe:
    recipe = small_recipe(folder)
    data = DataConfig(path=recipe.data.path, batch_size=4, tokenizer=tokenizer, rows=rows)
    return small_recipe(folder, data=data, model=ModelConfig(layers=1, heads=1, width=16, context=8, vocab_size=270))


@pytest.mark.parametrize("rows", ["packed", "documents"])
def test_a_run_on_byte_pairs_is_evaluated_on_the_text_of_a_run_on_bytes(tmp_path: Path, rows: str) -> None:
    pairs = build_components(_recipe(tmp_path, "bpe:270", rows))
    plain = build_components(_recipe(tmp_path, rows=rows))
    assert (pairs.batches.tokenizer.name, plain.batches.tokenizer.name) == ("bpe:270", "bytes")
    assert pairs.held_out is not None
    assert plain.held_out is not None
    assert pairs.token_bytes is not None
    assert pairs.token_bytes > 1.0 == plain.token_bytes
    text = bytes(plain.held_out.windows.shards[0]).decode()
    assert text.startswith(pairs.batches.tokenizer.text(pairs.held_out.windows.shards[0].tolist())[:10])


def test_a_run_on_byte_pairs_trains_and_reports_bits_per_byte(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    job = Job(directory=tmp_path, run_id="r", mode="offline", quiet=True, on_step=lambda s, b, row: rows.append(row))
    train(_recipe(tmp_path, "bpe:270"), job)
    assert rows[-1]["held_out_bits_per_byte"] < rows[-1]["held_out_loss"] / np.log(2)


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer sets both"):
        build_components(_recipe(tmp_path, "bpe:271"))
    np.arange(2000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    data = DataConfig(path=str(tmp_path / "a.bin"), batch_size=2, tokenizer="bpe:300")
    with pytest.raises(UsageError, match="has tokens already"):
        build_components(small_recipe(tmp_path, data=data))


def test_a_tokenizer_is_named_by_its_size_and_shows_its_tokens() -> None:
    assert (byte_pair_size("bpe:4096"), byte_pair_size("gpt2")) == (4096, None)
    assert Ids("gpt2").text([3, 4]) == "3 4"
    assert (Bytes().show(10), Bytes().encode("\u00e9")) == ("\\n", [0xC3, 0xA9])


def test_a_batch_is_shown_by_the_beginning_of_its_first_row() -> None:
    batch = Batch.of_windows(3, np.array([list(b"the cat sat"), list(b"other words")], dtype=np.int64))
    assert batch_text(batch, Bytes()) == "the cat sa"
    assert batch_text(batch, Bytes(), max_characters=3) == "the"
    assert batch_text(batch, Ids(None)) == " ".join(map(str, b"the cat sa"))


def test_bytes_that_are_no_text_are_replaced() -> None:
    batch = Batch(0, torch.tensor([[0xFF, 0x41, 0x07]]), torch.tensor([[0x41, 0x07, 0]]))
    assert batch_text(batch, Bytes()) == "\ufffdA\ufffd"
