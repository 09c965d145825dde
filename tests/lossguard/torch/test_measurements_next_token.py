import math

import pytest
import torch

from lossguard.torch import next_token


def test_a_vocabulary_of_bytes_is_given_whole_and_sums_to_one() -> None:
    logits_V = torch.randn(256, generator=torch.Generator().manual_seed(1)) * 5
    recorded = next_token(logits_V, str, target=7)
    assert sorted(map(int, recorded["tokens"])) == list(range(256))
    assert math.fsum(map(math.exp, recorded["log_probabilities"])) == pytest.approx(1.0, abs=1e-5)
    assert recorded["log_probabilities"] == sorted(recorded["log_probabilities"], reverse=True)
    assert recorded["target"] == "7"
    assert recorded["target_log_probability"] == recorded["log_probabilities"][recorded["tokens"].index("7")]
    assert "rest_count" not in recorded


def test_of_a_large_vocabulary_the_likeliest_are_named_and_the_rest_is_summed() -> None:
    logits_V = torch.arange(1000.0) / 100
    recorded = next_token(logits_V, str, target=0)
    assert recorded["tokens"] == [str(token) for token in range(999, 935, -1)]
    assert recorded["rest_count"] == 936
    named = math.fsum(map(math.exp, recorded["log_probabilities"]))
    assert named + math.exp(recorded["rest_log_probability"]) == pytest.approx(1.0, abs=1e-5)
    assert recorded["target"] == "0"
    assert recorded["target_log_probability"] < min(recorded["log_probabilities"])


def test_a_model_that_broke_is_probed_as_nan() -> None:
    recorded = next_token(torch.full((4,), math.nan), str, target=1)
    assert all(map(math.isnan, [*recorded["log_probabilities"], recorded["target_log_probability"]]))


def test_the_logits_of_many_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a vector .of one position., not of shape \(2, 4\)"):
        next_token(torch.zeros(2, 4), str)


def test_the_exact_entropy_is_that_of_the_whole_vocabulary_in_float64() -> None:
    logits_V = torch.randn(5000, generator=torch.Generator().manual_seed(3)) * 3
    p = logits_V.double().softmax(0)
    recorded = next_token(logits_V, str, entropy=True)
    assert recorded["entropy"] == pytest.approx(-(p * p.log()).sum().item(), abs=2e-6)
    assert "entropy" not in next_token(logits_V, str)


def test_the_entropy_of_a_certain_token_is_zero_and_that_of_a_broken_model_is_nan() -> None:
    certain_V = torch.full((300,), -math.inf)
    certain_V[7] = 0.0
    assert next_token(certain_V, str, entropy=True)["entropy"] == 0.0
    assert math.isnan(next_token(torch.full((4,), math.nan), str, entropy=True)["entropy"])
