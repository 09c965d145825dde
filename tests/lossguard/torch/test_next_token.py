import math

import pytest
import torch

from lossguard.torch import next_token


def test_a_vocabulary_of_bytes_is_given_whole_and_sums_to_one() -> None:
    logits_V = torch.randn(256, generator=torch.Generator().manual_seed(1)) * 5
    told = next_token(logits_V, str, target=7)
    assert sorted(map(int, told["tokens"])) == list(range(256))
    assert math.fsum(map(math.exp, told["log_probabilities"])) == pytest.approx(1.0, abs=1e-5)
    assert told["log_probabilities"] == sorted(told["log_probabilities"], reverse=True)
    assert told["target"] == "7"
    assert told["target_log_probability"] == told["log_probabilities"][told["tokens"].index("7")]
    assert "rest_count" not in told


def test_of_a_large_vocabulary_the_likeliest_are_named_and_the_rest_is_summed() -> None:
    logits_V = torch.arange(1000.0) / 100
    told = next_token(logits_V, str, target=0)
    assert told["tokens"] == [str(token) for token in range(999, 935, -1)]
    assert told["rest_count"] == 936
    named = math.fsum(map(math.exp, told["log_probabilities"]))
    assert named + math.exp(told["rest_log_probability"]) == pytest.approx(1.0, abs=1e-5)
    assert told["target"] == "0"
    assert told["target_log_probability"] < min(told["log_probabilities"])


def test_a_model_that_broke_is_probed_as_nan() -> None:
    told = next_token(torch.full((4,), math.nan), str, target=1)
    assert all(map(math.isnan, [*told["log_probabilities"], told["target_log_probability"]]))


def test_the_logits_of_many_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a vector .of one position., not of shape \(2, 4\)"):
        next_token(torch.zeros(2, 4), str)
