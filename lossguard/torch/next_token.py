"""From a model's logits to what `run.probe` takes.

Shapes: V vocabulary, K tokens that are named.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lossguard.probe import MAX_TOKENS

LIKELIEST = 64
"""Tokens that are named of a vocabulary too large to be stored whole."""
DIGITS = 6  # decimals that a float32 logarithm has


def next_token(logits_V: Tensor, decode: Callable[[int], str], *, target: int | None = None) -> dict[str, Any]:
    """The keyword arguments of `run.probe` for these logits: `run.probe(step, prompt, **next_token(logits, decode))`.

    A vocabulary of at most 256 tokens is given whole, of a larger one the 64 likeliest, and what the others sum to.
    `decode` says what is shown of a token id. Waits for the device. Raises ValueError for logits of another shape.
    """
    if logits_V.dim() != 1:
        raise ValueError(f"the logits of one position are wanted, a vector, not the shape {tuple(logits_V.shape)}")
    log_p_V = logits_V.detach().float().log_softmax(dim=-1)
    V = len(log_p_V)
    top = log_p_V.topk(V if V <= MAX_TOKENS else LIKELIEST)
    ids_K, values_K = top.indices.tolist(), top.values.tolist()
    told: dict[str, Any] = {
        "tokens": [decode(token) for token in ids_K],
        "log_probabilities": [round(value, DIGITS) for value in values_K],
    }
    if target is not None:
        told |= {"target": decode(target), "target_log_probability": round(log_p_V[target].item(), DIGITS)}
    if len(ids_K) < V:
        others = log_p_V.index_fill(0, top.indices, float("-inf")).logsumexp(dim=0).item()
        told |= {"rest_count": V - len(ids_K), "rest_log_probability": round(others, DIGITS)}
    return told
