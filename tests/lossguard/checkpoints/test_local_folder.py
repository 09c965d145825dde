import pytest

from lossguard.checkpoints.local_folder import share_of

OF_RANKS = [name for n in range(12) for name in (f"__{n}_0.distcp", f"rank-{n}.pt", f"tensors-{n}.json")]
OF_ALL = ["model.pt", "optimizer.pt", "tensors.json", "global_step500/zero_3_optim.pt"]


@pytest.mark.parametrize("num_ranks", [1, 4, 5, 12, 40])
def test_every_file_of_a_checkpoint_is_compared_by_one_rank(num_ranks: int) -> None:
    shares = [share_of([*OF_RANKS, *OF_ALL], rank, num_ranks) for rank in range(num_ranks)]
    assert sorted(name for share in shares for name in share) == sorted([*OF_RANKS, *OF_ALL])
    assert max(map(len, shares)) - min(map(len, shares)) <= 4


def test_a_rank_compares_what_it_reads() -> None:
    assert set(share_of(OF_RANKS, 11, 12)) == {"__11_0.distcp", "rank-11.pt", "tensors-11.json"}
