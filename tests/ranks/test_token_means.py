"""The scenarios of `token_means`: a step of several ranks equals the step of one process with all their tokens."""

from pathlib import Path
from typing import Any

import pytest

from tests.ranks.token_means import TOKENS, step, trained

pytestmark = pytest.mark.slow
Results = list[dict[str, Any]]


@pytest.mark.parametrize("name", TOKENS)
def test_terms_and_gradient_are_those_of_one_process_with_all_tokens(results: Results, name: str) -> None:
    alone = step(TOKENS[name])
    assert alone["num_tokens"] == sum(TOKENS[name])
    for each in results:
        for found in each["steps_over_all_tokens"][name]:
            assert found.keys() == alone.keys()
            for key, value in found.items():
                assert value == pytest.approx(alone[key], abs=1e-6, rel=1e-6), key


def test_a_nan_on_one_rank_is_nan_on_all_beside_a_rank_without_tokens(results: Results) -> None:
    for each in results:
        found = each["a_nan_among_uneven_tokens"]
        assert [found[key] for key in ("loss", "cross_entropy", "log_z", "log_z_max", "grad_norm")] == ["nan"] * 5
        assert found["num_tokens"] == "12"


def test_plain_losses_have_a_mean_over_all_ranks(results: Results) -> None:
    last, size = len(results) - 1, len(results)
    for each in results:
        found = each["plain_losses"]
        assert found["mean"] == [pytest.approx((1 + last / 2 + 2) / 2), last]
        assert found["one"] == [pytest.approx(1 + last / 2), 0]
        assert found["weighed"] == [pytest.approx((3 + 5 * size) / (3 + size)), 0]


def test_the_trainer_on_padded_batches_reports_what_one_process_reports(results: Results, tmp_path: Path) -> None:
    names = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss")
    alone = [[metrics[name] for name in names] for metrics in trained(tmp_path)]
    for each in results:
        for rows in each["the_trainer_on_padded_batches"].values():
            for metrics, expected in zip(rows, alone, strict=True):
                assert [metrics[name] for name in names] == pytest.approx(expected, rel=1e-6)
