"""The largest attention logit: it grows for many steps before the attention collapses and the loss diverges.

Dehghani et al. 2023 (Scaling Vision Transformers to 22 Billion Parameters) and Wortsman et al. 2023 (Small-scale
proxies for large-scale Transformer training instabilities) saw it at 50 and far above before divergences.

Shapes: B sequences, H heads, T queries, S keys, K width of a head; G of key heads, where several query heads share one;
b, h and t of those that are looked at.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lossguard.vocabulary.errors import LogOnce, never_raises

MAX_SEQUENCES, MAX_HEADS, MAX_QUERIES = 2, 4, 128


@torch.no_grad()
def max_attention_logit(
    query_BHTK: Tensor,
    key_BGSK: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    max_sequences: int = MAX_SEQUENCES,
    max_heads: int = MAX_HEADS,
    max_queries: int = MAX_QUERIES,
) -> Tensor:
    """The largest of scale * q k' among the keys that a query may attend to: a 0-dim float32 tensor.

    The arguments are those of `scaled_dot_product_attention`, which does not form the logits; `scale` is by default
    1 / sqrt(K). Only `max_sequences`, `max_heads` and `max_queries` of each head are looked at, evenly spaced, against
    all of their keys: the true maximum may be larger. At the defaults that is 1024 rows of S logits, whatever the size
    of the batch: some MiB, and about a thousandth of the layer's own work at long contexts. No host sync.
    """
    B, H, T, K = query_BHTK.shape
    G, S = key_BGSK.shape[1:3]
    device = query_BHTK.device
    sequences_b, heads_h, queries_t = (
        _spread(*each, device) for each in ((B, max_sequences), (H, max_heads), (T, max_queries))
    )
    has_autocast = torch.amp.is_autocast_available(device.type)
    with torch.autocast(device.type, enabled=False) if has_autocast else nullcontext():  # products in float32
        query_bhtK = query_BHTK.detach()[sequences_b][:, heads_h][:, :, queries_t].float()
        key_bhSK = key_BGSK.detach().expand(B, G, S, K)[sequences_b][:, heads_h * G // H].float()
        logits_bhtS = query_bhtK @ key_bhSK.transpose(-1, -2) * (1 / math.sqrt(K) if scale is None else scale)
    if is_causal:
        later_tS = torch.arange(S, device=device) > queries_t[:, None]
        logits_bhtS = logits_bhtS.masked_fill(later_tS, -torch.inf)
    if attn_mask is not None:
        mask_bhtS = attn_mask.expand(B, H, T, S)[sequences_b][:, heads_h][:, :, queries_t]
        is_choice = mask_bhtS.dtype == torch.bool
        logits_bhtS = logits_bhtS.masked_fill(~mask_bhtS, -torch.inf) if is_choice else logits_bhtS + mask_bhtS
    return logits_bhtS.max()


def _spread(size: int, most: int, device: torch.device) -> Tensor:
    """int64: at most `most` of 0 .. size - 1, evenly spaced, with the last one."""
    num = min(size, max(most, 1))
    return size - 1 - (torch.arange(num, device=device) * size) // num


class AttentionLogits:
    """Finds the largest attention logit of a model, in every call of `scaled_dot_product_attention`.

        attention = AttentionLogits(every=10)
        ..
        with attention.watching(step):
            logits = model(inputs)
        run.log(step, loss=loss, **attention.take())

    Between two measured steps it does nothing at all. In a measured one, every torch function that the model calls
    costs a few microseconds more of the host. It does not see into a compiled model, nor calls of other kernels (the
    package flash-attn, FlexAttention): there, call `observe` with queries and keys.
    """

    def __init__(
        self,
        *,
        every: int = 10,
        max_sequences: int = MAX_SEQUENCES,
        max_heads: int = MAX_HEADS,
        max_queries: int = MAX_QUERIES,
    ) -> None:
        """`every`: measure one step in so many; the others: see `max_attention_logit`. Raises ValueError below 1."""
        limits: dict[str, Any] = {"max_sequences": max_sequences, "max_heads": max_heads, "max_queries": max_queries}
        for name, value in {"every": every, **limits}.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self._every, self._limits = every, limits
        self.log_once = LogOnce()
        self._largest: Tensor | None = None

    def watching(self, step: int) -> AbstractContextManager[Any]:
        """A context in which attention is looked at, if `step` is one of those that are measured."""
        return _Watching(self) if step % self._every == 0 else nullcontext()

    def observe(self, query_BHTK: Tensor, key_BGSK: Tensor, **masks: Any) -> None:
        """Look at one layer's queries and keys; `masks`: attn_mask, is_causal and scale of `max_attention_logit`."""
        if not query_BHTK.numel() or not key_BGSK.numel():
            return  # a micro-batch without sequences
        largest = max_attention_logit(query_BHTK, key_BGSK, **masks, **self._limits)
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)

    @never_raises
    def look(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> None:
        """Look at a call of `scaled_dot_product_attention` with these arguments. Never raises."""
        if query.dim() == 4:
            self.observe(query, key, attn_mask=attn_mask, is_causal=is_causal, scale=scale)

    def take(self) -> dict[str, Tensor]:
        """`attention_logit_max` since the last call, a 0-dim tensor on its device; empty if nothing was looked at."""
        largest, self._largest = self._largest, None
        return {} if largest is None else {"attention_logit_max": largest}


class _Watching(TorchFunctionMode):
    def __init__(self, observer: AttentionLogits) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self._observer.look(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
