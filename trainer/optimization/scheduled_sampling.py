"""Inputs that the model generates itself, in training and in measurements.

Teacher forcing trains on the true tokens only. Scheduled sampling replaces some of them by tokens of the model's own
(Bengio et al. 2015); errors then compound as in generation, for a later token is sampled after an earlier one. That
takes as many passes as there are positions. In parallel (Mihaylova and Martins 2019; Duckworth et al. 2019), one pass
after the true tokens predicts the tokens of all positions, and errors do not compound.

Both change the optimum, too: the target is the text's next token, whatever was fed in its place, so that a model that
sees only its own tokens learns the distribution of each position by itself (Huszar 2015).

Shapes: B sequences, T positions, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import ObjectiveConfig

Predictor = Callable[[Tensor], Tensor]
"""From inputs (B, T) to the logits of the next tokens (B, T, V): a model, or a source whose probabilities are known."""


@torch.no_grad()
def training_inputs(predict: Predictor, inputs_BT: Tensor, config: ObjectiveConfig) -> Tensor:
    """The true inputs, some of them replaced as the configuration says; the first one never is."""
    if config.scheduled_sampling:
        uniforms_BT = torch.rand(inputs_BT.shape, device=inputs_BT.device)
        return roll_out(predict, inputs_BT, _chosen(inputs_BT, config.scheduled_sampling), uniforms_BT)
    if config.parallel_scheduled_sampling:
        likeliest_BT = predict(inputs_BT).argmax(dim=-1)[:, :-1]  # position t predicts token t + 1
        chosen_BT = _chosen(inputs_BT[:, 1:], config.parallel_scheduled_sampling)
        return torch.cat((inputs_BT[:, :1], torch.where(chosen_BT, likeliest_BT, inputs_BT[:, 1:])), dim=1)
    return inputs_BT


@torch.no_grad()
def roll_out(predict: Predictor, inputs_BT: Tensor, own_BT: Tensor, uniforms_BT: Tensor) -> Tensor:
    """The inputs, with each token where `own_BT` is true sampled after those before it. The first token stays.

    `uniforms_BT`, between 0 and 1, decide which token is sampled. Takes a pass per position, of ever more positions.
    """
    tokens_BT = inputs_BT.clone()
    for t in range(1, inputs_BT.shape[1]):
        sampled_B = _sample(predict(tokens_BT[:, :t])[:, -1], uniforms_BT[:, t])
        tokens_BT[:, t] = torch.where(own_BT[:, t], sampled_B, inputs_BT[:, t])
    return tokens_BT


def _sample(logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """For each row, the token in whose share of the cumulative distribution the number lies: (B,)."""
    cumulative_BV = logits_BV.float().softmax(dim=-1).cumsum(dim=-1)
    places_B1 = (uniforms_B.unsqueeze(-1) * cumulative_BV[:, -1:]).contiguous()
    tokens_B1 = torch.searchsorted(cumulative_BV, places_B1, right=True)
    return tokens_B1.squeeze(-1).clamp(max=logits_BV.shape[-1] - 1)  # NaN, of a diverged model, is past the end


def _chosen(inputs_BT: Tensor, probability: float) -> Tensor:
    return torch.rand(inputs_BT.shape, device=inputs_BT.device) < probability
