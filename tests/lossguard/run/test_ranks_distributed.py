from lossguard.run.ranks import RankState, current_ranks


def test_a_process_without_torch_distributed_is_alone_and_agrees_with_itself_at_once() -> None:
    ranks = current_ranks()
    word = RankState(3, signal=15, order=True)
    assert (ranks.rank, ranks.size, ranks.exchange(word), ranks.broadcast(7), ranks.gather(7)) == (0, 1, word, 7, [7])
    assert (ranks.agree_on_run_id("given", "new"), ranks.agree_on_run_id(None, "new")) == ("given", "new")
