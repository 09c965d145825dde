"""The distance of a model from the source of its data, after true prefixes and after prefixes of its own.

Exposure bias is what the second distance has more than the first. It needs a source whose probabilities are known. The
loss of a text's tokens after the model's own prefix is no measure of it: the text does not continue that prefix, so
that even its true generator, which has no exposure bias, gets a loss of several nats.

Standard errors are over independent sequences: the standard deviation of their means, divided by the square root of
their number. Neighbouring positions of one sequence are not independent.

Shapes: N sequences, T positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lossguard import Estimate
from trainer.data.markov import MarkovChain
from trainer.data.ngram import NGram
from trainer.optimization.scheduled_sampling import Predictor, roll_out

NUM_SEQUENCES = 1024


@dataclass(kw_only=True, slots=True, frozen=True)
class ExposureBias:
    """KL(source || model) in nats per token; 0 everywhere for the source itself."""

    true_prefixes: Estimate
    """After prefixes that the source generated."""
    own_prefixes: Estimate
    """After prefixes that the model generated, from the first token of the source on."""
    bias: Estimate
    """The second minus the first, pair by pair."""
    true_prefixes_T: list[float]
    """By the length of the prefix less one."""
    own_prefixes_T: list[float]


@torch.no_grad()
def exposure_bias(
    model: Predictor, chain: MarkovChain, context: int, *, num_sequences: int = NUM_SEQUENCES
) -> ExposureBias:
    """Measured on sequences that the same uniform random numbers generate from the chain and from the model.

    The two of a pair begin with the same token, and part where the model's probabilities differ enough. That makes the
    difference more precise. It changes no expected value.
    """
    generator = torch.Generator().manual_seed(0)
    first_N1 = chain.first_tokens(num_sequences, generator)
    uniforms_NT = torch.rand(num_sequences, context, generator=generator)
    device = _device(model)
    first_NT, uniforms_NT = first_N1.expand(-1, context).to(device), uniforms_NT.to(device)
    everywhere_NT = torch.ones_like(first_NT, dtype=torch.bool)
    true_NT, own_NT = (
        divergence(model, chain, roll_out(source, first_NT, everywhere_NT, uniforms_NT))
        for source in (chain.log_probabilities, model)
    )
    return ExposureBias(
        true_prefixes=Estimate.of(true_NT.mean(dim=1)),
        own_prefixes=Estimate.of(own_NT.mean(dim=1)),
        bias=Estimate.of((own_NT - true_NT).mean(dim=1)),
        true_prefixes_T=true_NT.mean(dim=0).tolist(),
        own_prefixes_T=own_NT.mean(dim=0).tolist(),
    )


def divergence(model: Predictor, chain: MarkovChain, inputs_NT: Tensor) -> Tensor:
    """KL(chain || model) for the token after each position, in nats: (N, T)."""
    log_true_NTV = chain.log_probabilities(inputs_NT)
    log_model_NTV = model(inputs_NT).float().log_softmax(dim=-1)
    return (log_true_NTV.exp() * (log_true_NTV - log_model_NTV)).sum(dim=-1)


@dataclass(kw_only=True, slots=True, frozen=True)
class OwnContinuations:
    """Loss of the model's continuations less that of the real ones, in nats per token, under a reference.

    0 for the true generator, whatever the reference. This is a necessary condition, and no more: it is not the exposure
    bias, because one token after a true prefix can already differ, and it can be negative, because text that is more
    likely than real text is no better.
    """

    excess: Estimate
    growth: Estimate
    """Excess of the last quarter of the continuation, less that of the first."""


@torch.no_grad()
def own_continuations(model: Predictor, windows_NT: Tensor, reference: NGram) -> OwnContinuations:
    """The first half of each window is the prompt. The windows should be of other documents than the reference."""
    device = _device(model)
    windows_NT = windows_NT.to(device)
    prompt = windows_NT.shape[1] // 2
    uniforms_NT = torch.rand(windows_NT.shape, generator=torch.Generator().manual_seed(0)).to(device)
    generated_NT = torch.zeros_like(windows_NT, dtype=torch.bool)
    generated_NT[:, prompt:] = True
    own_NT = roll_out(model, windows_NT, generated_NT, uniforms_NT)
    own_loss_NT, real_loss_NT = (reference.losses(tokens.cpu().numpy())[:, prompt:] for tokens in (own_NT, windows_NT))
    excess_NT = torch.from_numpy(own_loss_NT - real_loss_NT)
    quarter = max(1, excess_NT.shape[1] // 4)
    growth_N = excess_NT[:, -quarter:].mean(dim=1) - excess_NT[:, :quarter].mean(dim=1)
    return OwnContinuations(excess=Estimate.of(excess_NT.mean(dim=1)), growth=Estimate.of(growth_N))


def _device(model: Predictor) -> torch.device:
    """Return the device of the model's parameters; the CPU for a source."""
    return next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
