"""Probes: the next token that the model predicts after fixed prompts, recorded at intervals.

The last token of a prompt is the target, to be predicted from the tokens before it. If a token is a byte, a prompt is
text, and a token is shown as in a Python bytes literal; with byte pairs it is text, too; for shards of other tokens a
prompt is a list of ids, such as "464 3290 318".
"""

import torch
from torch import nn

import lossguard
from lossguard.torch import next_token
from trainer.config import Recipe
from trainer.data.tokenizer import Tokenizer
from trainer.errors import UsageError

PROMPTS = ("import sys", "def __init__(self", "    return None", "for i in range(")
"""For the standard library's source; used if the recipe names no prompts and a token is a byte."""


class Probes:
    """The prompts of a run."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer) -> None:
        """Raises UsageError for prompts that cannot be used."""
        self.every = recipe.probe_every
        self.tokenizer = tokenizer
        self.context = recipe.model.context
        texts = recipe.probe_prompts or (PROMPTS if tokenizer.is_of_text and recipe.model.vocab_size >= 128 else ())
        self.prompts = [_checked(text, tokenizer.encode(text), recipe.model.vocab_size) for text in texts]

    @torch.no_grad()
    def take(self, model: nn.Module, run: lossguard.Run, step: int, device: torch.device) -> None:
        """Probe the model as it is after `step`, if it is due. Every rank calls it: the pass may be a collective."""
        if self.every == 0 or (step + 1) % self.every:
            return
        model.eval()
        for tokens in self.prompts:
            *given, target = tokens
            inputs_BT = torch.tensor([given[-self.context :]], device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits_V = model(inputs_BT)[0, -1]
            text = self.tokenizer.text(given)
            run.probe(step, text, **next_token(logits_V, self.tokenizer.show, target=target, entropy=True))
        model.train()


def _checked(text: str, tokens: list[int], vocab_size: int) -> list[int]:
    if len(tokens) < 2:
        raise UsageError(f"The prompt {text!r} in probe_prompts is too short: its last token is the target.")
    if not 0 <= min(tokens) <= max(tokens) < vocab_size:
        raise UsageError(
            f"The prompt {text!r} in probe_prompts holds a token beyond the vocabulary of {vocab_size}: "
            "use another prompt, or raise model.vocab_size."
        )
    return tokens
