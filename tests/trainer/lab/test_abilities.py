from itertools import groupby
from pathlib import Path

import pytest
import torch

from tests.trainer.lab.small import shown, small_lab
from trainer.lab.abilities import KINDS, ability_runs, copying, kinds_of, show_abilities


def test_every_byte_of_a_piece_of_python_has_its_kind() -> None:
    text = b"\n    if size:\n        print(size)"
    runs = [(kind, b"".join(bytes([text[at]]) for at, _ in own)) for kind, own in _runs(kinds_of(text))]
    assert {("indentation", b"    "), ("keyword", b"if"), ("bracket", b"("), ("new name", b"print")} < set(runs)
    assert runs.count(("new name", b"size")) == runs.count(("repeated name", b"size")) == 1


def _runs(kinds: list[str]) -> list[tuple[str, list[tuple[int, str]]]]:
    return [(kind, list(own)) for kind, own in groupby(enumerate(kinds), key=lambda each: each[1])]


class Copier(torch.nn.Module):
    """After a token that it has seen, it expects what followed it then."""

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*inputs_BT.shape, 128)
        for row, tokens in enumerate(inputs_BT.tolist()):
            for t in range(1, len(tokens)):
                if tokens[t] in tokens[:t]:
                    logits[row, t, tokens[tokens.index(tokens[t]) + 1]] = 20.0
        return logits


def test_a_model_that_copies_has_a_lower_loss_the_second_time() -> None:
    first, second = copying(Copier(), 128, 63)
    assert second < first - 1.0


@pytest.mark.slow
def test_a_training_is_measured_at_each_of_its_checkpoints(tmp_path: Path) -> None:
    (result,) = ability_runs(small_lab(tmp_path, "model.context=63", steps=10))
    assert result.steps[-1] == 10
    assert len(result.steps) == len(result.copied) == len(result.kinds["bracket"])
    assert set(result.kinds) == set(KINDS)
    assert len(result.positions) == 7
    assert "its copy" in shown(show_abilities, [result])
