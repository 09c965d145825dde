from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.data.tokens import LLMC_MAGIC, LLMC_WIDE_MAGIC, characters_per_byte, check_vocabulary, open_shards
from trainer.errors import UsageError


def _llmc_shard(file: Path, tokens: list[int], *, magic: int = LLMC_MAGIC, announced: int | None = None) -> None:
    header = np.zeros(256, dtype=np.int32)
    header[:3] = magic, 1, len(tokens) if announced is None else announced
    file.write_bytes(header.tobytes() + np.array(tokens, dtype=np.uint16).tobytes())


@pytest.mark.parametrize(
    ("write", "tokens"),
    [
        (lambda folder: (folder / "a.txt").write_bytes("h\u00e9".encode()), [104, 195, 169]),
        (lambda folder: np.array([1, 50256, 7], dtype=np.uint16).tofile(folder / "train.bin"), [1, 50256, 7]),
        (lambda folder: _llmc_shard(folder / "a.bin", [5, 6, 7]), [5, 6, 7]),
    ],
    ids=["text", "nanoGPT: raw uint16", "llm.c: known by its header"],
)
def test_a_file_is_read_as_its_tokens(tmp_path: Path, write: Callable[[Path], object], tokens: list[int]) -> None:
    write(tmp_path)
    (file,) = tmp_path.iterdir()
    (shard,) = open_shards(str(file))
    assert shard.tolist() == tokens


def test_a_folder_is_its_texts_in_the_order_of_its_paths_without_hidden_files(tmp_path: Path) -> None:
    for name, text in {"b.txt": "B", "a/z.txt": "Z", ".hidden": "H", "a/.git/x": "X"}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert [bytes(shard) for shard in open_shards(str(tmp_path))] == [b"Z\n", b"B"]


def test_a_folder_of_shards_gives_them_in_the_order_of_their_names(tmp_path: Path) -> None:
    _llmc_shard(tmp_path / "b.bin", [2])
    _llmc_shard(tmp_path / "a.bin", [1])
    (tmp_path / "README.md").write_text("not data")
    assert [shard.tolist() for shard in open_shards(str(tmp_path))] == [[1], [2]]


def test_data_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            check_vocabulary(open_shards(str(tmp_path / "a.bin")), 256)

    refused(r"There is no data at .*a\.bin")
    _llmc_shard(tmp_path / "a.bin", [5, 6, 7], announced=9)
    refused("according to its header it has 1042 bytes, but it has 1030")
    _llmc_shard(tmp_path / "a.bin", [5, 6], magic=LLMC_WIDE_MAGIC)
    refused("32-bit")
    (tmp_path / "a.bin").write_bytes(b"odd")
    refused("odd number of bytes")
    np.array([1, 50256, 7], dtype=np.uint16).tofile(tmp_path / "a.bin")
    refused(r"50256, outside the vocabulary of 256: set model.vocab_size to 50257")


@pytest.mark.slow
def test_the_default_text_is_the_standard_library_without_its_tests() -> None:
    shards = open_shards("")
    assert 5e6 < sum(map(len, shards)) < 40e6
    assert 300 < len(shards) < 3000
    assert b"".join(map(bytes, shards[:2])).startswith(b'"""Record of phased-in')


def test_characters_are_counted_as_python_counts_them() -> None:
    text = "na\u00efve \u20ac \U0001f600 plain"
    shard = np.frombuffer(text.encode(), dtype=np.uint8)
    assert characters_per_byte([shard, shard]) == len(text) / len(text.encode())
