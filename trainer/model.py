"""A GPT: pre-norm blocks, rotary positions, causal attention, tied embeddings (or not, if asked for).

Shapes: B sequences, T positions, D width, H heads, K width of a head, V vocabulary, F width of the feed-forward (4 D).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig

INIT_STD = 0.02  # GPT-2's
ROPE_BASE = 10_000.0  # RoFormer's (Su et al. 2021)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and, where asked for, normalised queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.causal = config.causal
        head_width = config.width // config.heads
        self.in_projection = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out_projection = nn.Linear(config.width, config.width, bias=False)
        self.query_norm = nn.RMSNorm(head_width) if config.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_width) if config.qk_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, rotation: "Rotation") -> Tensor:
        B, T, D = x_BTD.shape
        qkv = self.in_projection(x_BTD).view(B, T, 3, self.heads, D // self.heads)
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4)
        q_BHTK = rotation.rotate(self.query_norm(q_BHTK))
        k_BHTK = rotation.rotate(self.key_norm(k_BHTK))
        dropout = self.dropout if self.training else 0.0
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=self.causal, dropout_p=dropout)
        projected: Tensor = self.out_projection(y_BHTK.transpose(1, 2).reshape(B, T, D))
        return projected


class FeedForward(nn.Module):
    """A two-layer network with GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.in_projection = nn.Linear(config.width, 4 * config.width, bias=False)
        self.out_projection = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden_BTF = F.gelu(self.in_projection(x_BTD))
        projected: Tensor = self.out_projection(hidden_BTF)
        return projected


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width)
        self.feed_forward = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, rotation: "Rotation") -> Tensor:
        x_BTD = x_BTD + self.drop(self.attention(self.attention_norm(x_BTD), rotation))
        x_BTD = x_BTD + self.drop(self.feed_forward(self.feed_forward_norm(x_BTD)))
        return x_BTD


@dataclass(frozen=True, slots=True)
class Rotation:
    """The angles of rotary positions: channel pair i of position t is rotated by t / base^(2i/K)."""

    cos_TK: Tensor
    sin_TK: Tensor

    def rotate(self, x_BHTK: Tensor) -> Tensor:
        first, second = x_BHTK.chunk(2, dim=-1)
        rotated: Tensor = x_BHTK * self.cos_TK + torch.cat((-second, first), dim=-1) * self.sin_TK
        return rotated.to(x_BHTK.dtype)


class GPT(nn.Module):
    """From token ids to logits of the next token. Tied, the embedding table is also the output projection."""

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self.unembedding = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        head_width = config.width // config.heads
        frequencies = ROPE_BASE ** -(torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
        angles = torch.arange(config.context, dtype=torch.float32)[:, None] * frequencies  # (T, K/2)
        angles_TK = torch.cat((angles, angles), dim=-1)  # both halves of a pair are rotated together
        self.register_buffer("cos_TK", angles_TK.cos(), persistent=False)
        self.register_buffer("sin_TK", angles_TK.sin(), persistent=False)
        # As GPT-2: normal with sd 0.02, less for layers that write into the residual stream.
        residual_std = INIT_STD / math.sqrt(2 * config.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                std = residual_std if name.endswith("out_projection.weight") else INIT_STD
                nn.init.normal_(parameter, mean=0.0, std=std)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        T = inputs_BT.shape[1]
        rotation = Rotation(self.cos_TK[:T], self.sin_TK[:T])
        x_BTD = self.embedding(inputs_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation)
        table_VD = self.embedding.weight if self.unembedding is None else self.unembedding.weight
        logits_BTV = F.linear(self.norm(x_BTD), table_VD)
        return logits_BTV

    def num_parameters(self) -> int:
        """The number of parameters; the tied table counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def flops_per_token(config: ModelConfig, *, full_attention: bool = False) -> int:
    """Floating-point operations of one trained token (forward and backward), counted from the matrix products.

    The backward pass costs twice the forward. Under the causal mask, a position attends to (T + 1) / 2 positions on
    average; without it, to all T. `full_attention` counts T in either case, as PaLM's appendix B and most published
    utilisations do. Norms, GELU and the softmax are not counted. Compare `6 * num_parameters`, the usual estimate.
    """
    matrices = config.layers * 12 * config.width**2 + config.vocab_size * config.width
    twice_attended = config.context + 1 if config.causal and not full_attention else 2 * config.context
    attention = config.layers * config.width * twice_attended  # scores and weighted sum
    return 6 * (matrices + attention)
