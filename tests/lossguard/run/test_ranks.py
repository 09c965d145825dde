from typing import Any

import pytest

from lossguard import Ranks
from lossguard.run.ranks import RankState, current_ranks
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch


class Two(Ranks):
    """Rank 0 of two; the state of the other one is given."""

    size = 2

    def __init__(self, *other: Any) -> None:
        self.other = other

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]

    def maximum(self, number: int) -> int:
        return max(number, int(self.other[0]))


def fail(problem: Exception) -> None:
    raise problem


def test_what_one_rank_does_alone_raises_what_it_raises() -> None:
    assert Ranks().run_on_all(divmod, 7, 2) == (3, 1)
    with pytest.raises(OSError, match="disk full"):
        Ranks().run_on_all(fail, OSError("disk full"))


def test_what_works_here_and_fails_there_fails_here_too() -> None:
    assert Two(0, "").run_on_all(divmod, 7, 2) == (3, 1)
    with pytest.raises(RuntimeError, match="rank 1: OSError: disk full"):
        Two(2, "OSError: disk full").run_on_all(divmod, 7, 2)


@pytest.mark.parametrize(
    ("mine", "other", "raised", "why"),
    [
        (CheckpointError("a"), (3, "b"), CheckpointMismatch, "rank 1: b"),
        (CheckpointError("a"), (2, "b"), RuntimeError, "rank 1: b"),
        (CheckpointError("a"), (1, "b"), CheckpointError, "a"),
        (OSError("a"), (1, "b"), OSError, "a"),
        (CheckpointMismatch("a"), (2, "b"), CheckpointMismatch, "a"),
    ],
)
def test_the_worst_error_of_any_rank_decides(
    mine: Exception, other: tuple[int, str], raised: type[Exception], why: str
) -> None:
    with pytest.raises(raised) as caught:
        Two(*other).run_on_all(fail, mine)
    assert (type(caught.value), str(caught.value)) == (raised, why)


def test_a_process_without_torch_distributed_is_alone_and_agrees_with_itself_at_once() -> None:
    ranks = current_ranks()
    word = RankState(3, signal=15, order=True)
    assert (ranks.rank, ranks.size, ranks.exchange(word), ranks.broadcast(7), ranks.gather(7)) == (0, 1, word, 7, [7])
    assert (ranks.agree_on_run_id("given", "new"), ranks.agree_on_run_id(None, "new")) == ("given", "new")
