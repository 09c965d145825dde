"""The largest attention logit, where the logits are never formed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lossguard.torch import AttentionLogits, max_attention_logit

ALL: dict[str, Any] = {"max_sequences": 99, "max_heads": 99, "max_queries": 99}


def queries_and_keys(heads: int = 4, key_heads: int = 4, positions: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, heads, positions, 8, generator=generator)
    return query, torch.randn(3, key_heads, positions, 8, generator=generator)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_it_is_the_maximum_of_the_logits_that_attention_uses(is_causal: bool, key_heads: int) -> None:
    query, key = queries_and_keys(key_heads=key_heads)
    logits = query @ key.repeat_interleave(4 // key_heads, dim=1).transpose(-1, -2) / 8**0.5
    if is_causal:
        logits = logits.masked_fill(~torch.ones(16, 16).tril().bool(), -torch.inf)
    torch.testing.assert_close(max_attention_logit(query, key, is_causal=is_causal, **ALL), logits.max())


def test_masks_hide_keys() -> None:
    query, key = queries_and_keys()
    key[:, :, 5] = 100 * query[:, :, 7]
    hidden = torch.ones(16, 16, dtype=torch.bool)
    hidden[:, 5] = False
    large = max_attention_logit(query, key, **ALL)
    for mask in (hidden, torch.zeros(16, 16).masked_fill(~hidden, -torch.inf)):
        assert max_attention_logit(query, key, attn_mask=mask, **ALL) < large / 10


def test_a_part_of_a_layer_is_a_lower_bound_with_the_last_query_of_the_last_head() -> None:
    query, key = queries_and_keys(heads=12, key_heads=12, positions=300)
    part = max_attention_logit(query, key)
    assert part <= max_attention_logit(query, key, **(ALL | {"max_queries": 300}))
    query[-1, -1, -1] *= 100
    assert max_attention_logit(query, key) > 10 * part
    query[-1, -1, -1, 0] = torch.nan
    assert max_attention_logit(query, key).isnan()


class Layer(nn.Module):
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value=key, is_causal=True)


def test_every_call_of_a_model_is_seen_in_the_steps_that_are_measured() -> None:
    query, key = queries_and_keys()
    attention, layer = AttentionLogits(every=10, **ALL), Layer()
    for step in range(11):
        with attention.watching(step):
            expected = layer(query, key)
            layer(query, 3 * key)
        found = attention.take()
        assert list(found) == (["attention_logit_max"] if step % 10 == 0 else [])
    largest = max_attention_logit(query, 3 * key, is_causal=True, **ALL)
    torch.testing.assert_close(found["attention_logit_max"], largest)
    torch.testing.assert_close(layer(query, key), expected)


def test_the_gradient_is_that_of_the_attention_alone() -> None:
    query, key = queries_and_keys()
    query.requires_grad_()
    attention = AttentionLogits(every=1)
    with attention.watching(0):
        Layer()(query, key).sum().backward()
    assert not attention.take()["attention_logit_max"].requires_grad
    watched, query.grad = query.grad, None
    Layer()(query, key).sum().backward()
    torch.testing.assert_close(query.grad, watched)


def test_no_value_is_read_from_the_device() -> None:
    query, key = (each.to("meta") for each in queries_and_keys())
    mask = torch.ones(16, 16, dtype=torch.bool, device="meta")
    assert max_attention_logit(query, key, is_causal=True, attn_mask=mask).device.type == "meta"


@pytest.mark.parametrize("keys", [(1, 2, 4, 8), (6, 1, 4, 8)])
def test_keys_that_are_broadcast_are_looked_at_as_attention_does(keys: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(6, 2, 4, 8), torch.randn(keys)
    attention = AttentionLogits()
    with attention.watching(0):
        F.scaled_dot_product_attention(query, key, key)
    expected = max_attention_logit(query, key.expand(6, 2, 4, 8))
    torch.testing.assert_close(attention.take()["attention_logit_max"], expected)


def test_a_call_that_cannot_be_looked_at_does_not_stop_the_model(caplog: pytest.LogCaptureFixture) -> None:
    attention = AttentionLogits()
    with attention.watching(0):
        empty = torch.zeros(0, 2, 4, 8)
        assert F.scaled_dot_product_attention(empty, empty, empty).shape == empty.shape
        key = torch.randn(6, 2, 4, 8)
        assert F.scaled_dot_product_attention(key[:1], key, key).shape == key.shape
    assert attention.take() == {}
    assert caplog.text.count("look failed, and training continues") == 1
