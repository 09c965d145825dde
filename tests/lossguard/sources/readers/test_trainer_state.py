import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources.joining import Joiner
from lossguard.sources.names import NameMap
from lossguard.sources.readers import trainer_state
from lossguard.sources.readers.trainer_state import runs_in
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.source_facts import SourceFacts
from tests.lossguard.sources.recorded_source import RecordedSource


def history(first: int, last: int, shift: float = 0.0) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 5.0 - step / 100 + shift, "learning_rate": 0.1} for step in range(first, last, 10)]


def save(folder: Path, log_history: list[dict[str, Any]], age: int) -> Path:
    """As Trainer.save_state writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"logging_steps": 10, "max_steps": 100, "log_history": log_history}, indent=2))
    os.utime(path, ns=(age, age))
    return path


def test_the_entries_of_a_step_are_one_row(tmp_path: Path) -> None:
    entries = [*history(10, 30), {"step": 20, "eval_loss": math.nan}, {"step": 20, "train_loss": 4.0}]
    save(tmp_path / "out", entries, 1)
    (run,) = runs_in(tmp_path)
    assert [(row.step, list(row.values)) for row in run.rows()] == [
        (10, ["loss", "learning_rate"]),
        (20, ["loss", "learning_rate", "eval_loss", "train_loss"]),
    ]
    assert (run.name, run.total_steps) == ("out", 100)
    assert run.facts == SourceFacts(stride=10, averaged=True, nan_filtered=True)


def test_a_file_that_is_written_again_adds_what_is_new(tmp_path: Path) -> None:
    source = RecordedSource("trainer_state", tmp_path)
    assert source.poll() == 0
    save(tmp_path / "checkpoint-20", history(10, 30), 1)
    assert source.poll() == 2
    save(tmp_path / "checkpoint-40", history(10, 50), 2).write_text('{"log_history": [')  # half-written
    assert source.poll() == 0
    save(tmp_path / "checkpoint-40", history(10, 50), 3)
    source.kill()
    assert source.poll() == 2
    assert source.poll() == 0


def test_a_resume_from_an_earlier_checkpoint_goes_back_to_it(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint-60", history(10, 70), 1)
    source = RecordedSource("trainer_state", tmp_path)
    source.poll()
    save(tmp_path / "checkpoint-50", [*history(10, 40), *history(40, 60, shift=0.5)], 2)
    source.kill()
    source.poll()
    assert [step for step, _ in source.rows] == [10, 20, 30, 40, 50, 60, 40, 50]


@pytest.mark.parametrize("text", ["", "[]", '{"log_history": 3}', "\x89PNG"])
def test_a_file_of_another_form_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(BadSource, match=r"trainer_state.json cannot be read"):
        list(runs_in(tmp_path))


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, num_bytes: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    file = save(tmp_path, history(10, 30), 1)
    monkeypatch.setattr(trainer_state, "read_beginning", refuse)
    with pytest.raises(BadSource, match=f"^{re.escape(str(file))} cannot be read .Permission denied.$"):
        list(runs_in(tmp_path))
    follower = trainer_state.follow(tmp_path, Joiner(NameMap()))
    assert not follower.facts.averaged
    with pytest.raises(PermissionError):
        list(follower.poll())
