"""What is kept of runs: by their revision, and of those that were asked for last."""

from db.models import Run
from db.store.known_runs import KnownRuns


def run(pk: int, *, revision: int = 1, started_at: float = 0.0) -> Run:
    return Run(pk=pk, id=f"r{pk}", started_at=started_at, revision=revision)


def test_a_value_is_current_for_one_revision_of_one_run() -> None:
    known = KnownRuns[str]()
    known.keep(run(1), "read")
    assert known.current(run(1)) == "read"
    assert (known.current(run(1, revision=2)), known.earlier(run(1, revision=2))) == (None, "read")
    # The key of a deleted run is used again.
    assert known.current(run(1, started_at=5.0)) is known.earlier(run(1, started_at=5.0)) is None


def test_those_that_were_asked_for_longest_ago_are_forgotten_first() -> None:
    known = KnownRuns[str](max_runs=2)
    known.keep(run(1), "one")
    known.keep(run(2), "two")
    assert known.current(run(1)) == "one"
    known.keep(run(3), "three")
    assert [known.current(run(pk)) for pk in (1, 2, 3)] == ["one", None, "three"]
