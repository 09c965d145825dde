"""From a model's logits to the arguments of `run.probe`.

Shapes: V vocabulary, K named tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossguard.probe import MAX_TOKENS

NUM_LIKELIEST = 64
"""Named tokens of a vocabulary that is too large to be stored completely."""
DIGITS = 6  # decimals that a float32 logarithm has


def next_token(
    logits_V: Tensor, decode: Callable[[int], str], *, target: int | None = None, entropy: bool = False
) -> dict[str, Any]:
    """The keyword arguments of `run.probe` for these logits: `run.probe(step, prompt, **next_token(logits, decode))`.

    A vocabulary of at most 256 tokens is returned completely; of a larger one the 64 likeliest tokens, and the summed
    probability of the others. From these alone, only an upper bound of the entropy follows; `entropy=True` adds the
    exact one, over the whole vocabulary. `decode` maps a token id to its text. Waits for the device. Raises ValueError
    unless the logits are a vector.
    """
    if logits_V.dim() != 1:
        raise ValueError(f"logits must be a vector (of one position), not of shape {tuple(logits_V.shape)}")
    log_p_V = logits_V.detach().float().log_softmax(dim=-1)
    V = len(log_p_V)
    top = log_p_V.topk(V if V <= MAX_TOKENS else NUM_LIKELIEST)
    ids_K, values_K = top.indices.tolist(), top.values.tolist()
    arguments: dict[str, Any] = {
        "tokens": [decode(token) for token in ids_K],
        "log_probabilities": [round(value, DIGITS) for value in values_K],
    }
    if target is not None:
        arguments |= {"target": decode(target), "target_log_probability": round(log_p_V[target].item(), DIGITS)}
    if len(ids_K) < V:
        others = log_p_V.index_fill(0, top.indices, float("-inf")).logsumexp(dim=0).item()
        arguments |= {"rest_count": V - len(ids_K), "rest_log_probability": round(others, DIGITS)}
    if entropy:
        information_V = -log_p_V.exp() * log_p_V.clamp(min=torch.finfo(log_p_V.dtype).min)  # 0 * -inf is NaN
        arguments["entropy"] = round(information_V.sum(dtype=torch.float64).clamp(min=0.0).item(), DIGITS)
    return arguments
