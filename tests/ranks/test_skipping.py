"""The scenario of `skipping`: skipped samples stay skipped on whichever rank they come again."""

from typing import Any

import pytest

from tests.ranks.skipping import ACCELERATE, EPOCHS, NUM, SKIP_FROM, SKIP_TO

pytestmark = pytest.mark.slow
Results = list[dict[str, Any]]


def flat(nested: Any) -> set[int]:
    return {sample for batch in nested for sample in batch}


@pytest.mark.parametrize("name", ["distributed", "each its own order", *ACCELERATE])
def test_a_sample_that_was_skipped_on_one_rank_comes_on_no_rank_in_later_epochs(results: Results, name: str) -> None:
    ranks = [each["samples_that_were_skipped_on_any_rank"][name] for each in results]
    ((first, end, skipped),) = ranks[0]["recorded"][1][3]["samples"]
    assert (first, end) == (SKIP_FROM, SKIP_TO)
    seen = [flat(each["skipped"]) for each in ranks]  # before the rollback
    assert all(seen)
    assert set(skipped) >= set().union(*seen)
    lengths = {len(each["epochs"][-1]) for each in ranks}
    assert len(lengths) == 1
    for epoch in range(1, EPOCHS):
        trained = [flat(each["epochs"][epoch]) for each in ranks]
        assert not set().union(*trained) & set(skipped)
        assert set().union(*trained) == set(range(NUM)) - set(skipped)
        by_rank = [list(map(len, each["epochs"][epoch])) for each in ranks]
        assert name == "each its own order" or all(sizes == by_rank[0] for sizes in by_rank)
