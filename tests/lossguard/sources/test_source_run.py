from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources import source_run
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun, checked, parsing, run_id_of, whole
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_run_id


def test_the_id_follows_from_the_identity_and_begins_with_the_name() -> None:
    run = SourceRun(format="csv", identity="/a", name="runs/my run", place="", rows=lambda: iter(()))
    assert run.run_id.startswith("runs-my-run-")
    assert run.run_id == replace(run, config={"x": 1}).run_id
    assert run.run_id != replace(run, identity="/b").run_id
    assert run.run_id != replace(run, format="jsonl").run_id


def test_every_name_makes_a_valid_id() -> None:
    for name in ("", "---", "ä/ö", "x" * 500, "\udcff\0", "."):
        assert is_run_id(run_id_of(name, "identity"))


@pytest.mark.parametrize("problem", [ValueError("a\nb"), TypeError(), RecursionError(), OverflowError(), KeyError("x")])
def test_whatever_a_reader_raises_is_one_sentence(problem: Exception) -> None:
    with pytest.raises(BadSource, match="here cannot be read: it is damaged, or not of") as caught, parsing("here"):
        raise problem
    assert "\n" not in str(caught.value)


def test_a_source_that_takes_too_much_memory_is_one_sentence() -> None:
    with pytest.raises(BadSource, match="here takes more than 1024 MiB of memory: import a part"), parsing("here"):
        raise MemoryError


@pytest.mark.parametrize("problem", [BadSource("mine"), ConfigurationError("mine"), OSError("mine")])
def test_what_says_itself_what_is_wrong_stays(problem: Exception) -> None:
    with pytest.raises(type(problem), match="mine"), parsing("here"):
        raise problem


def test_a_run_has_a_name_and_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[Row]:
        while True:
            yield Row(0, None, {"loss": 1.0})

    run = SourceRun(format="csv", identity="/a", name="a", place="a", rows=endless)
    monkeypatch.setattr(source_run, "MAX_ROWS", 10)
    (found,) = checked(iter([run]), Path("."))
    with pytest.raises(BadSource, match="a has more than 10 rows: import a part of it"):
        list(found.rows())
    nameless: Any = None
    with pytest.raises(BadSource, match="a has no name"):
        list(checked(iter([replace(run, name=nameless)]), Path(".")))


def test_the_parts_of_a_run_follow_each_other_and_of_whole_copies_the_last_one_counts() -> None:
    def found(step: int, part: str | None) -> SourceRun:
        rows = lambda: iter([Row(step, None, {"loss": 1.0})])  # noqa: E731
        return SourceRun(
            format="f", identity="r", name="r", place=f"at {step}", rows=rows, started_at=step, size=1, part=part
        )

    joined = whole([found(7, "b"), found(3, "a"), found(7, "b")])
    assert [row.step for row in joined.rows()] == [3, 7]
    assert (joined.started_at, joined.size, joined.place) == (3, 2, "at 7, begun in a")
    assert whole([found(3, None), found(7, None)]).place == "at 7"
    assert whole([found(3, "a")]).place == "at 3"
