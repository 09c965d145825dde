"""From raw text to the loss, as one picture: what each stage of a model makes of a text.

    python -m trainer explore CHECKPOINT --prompt 'def __init__(self' --draw pipeline.svg

Shapes: T positions, D width, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from trainer.data.tokenizer import Tokenizer
from trainer.errors import UsageError
from trainer.model import GPT

MAX_POSITIONS = 14
CELL, ROW, LEFT, TOP = 66, 44, 196, 66  # pixels


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the picture: what a stage makes of each position."""

    title: str
    explanation: str
    values: list[str]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of a text, and the loss of each of its tokens but the first, in nats."""

    stages: list[Stage]
    losses: list[float]

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)


@torch.no_grad()
def follow(model: GPT, tokenizer: Tokenizer, text: str) -> Pipeline:
    """Follow the first tokens of a text through the model. Raises UsageError."""
    tokens = tokenizer.encode(text)[: min(MAX_POSITIONS, model.config.context) + 1]
    if len(tokens) < 2:
        raise UsageError(
            f"The prompt {text!r} is too short: it needs two tokens, one to predict from and one to predict."
        )
    inputs, targets = tokens[:-1], tokens[1:]
    seen: dict[str, Tensor] = {}
    parts = {"embedding": model.embedding} | {f"block {n + 1}": block for n, block in enumerate(model.blocks)}
    hooks = [
        part.register_forward_hook(lambda module, given, out, name=name: seen.__setitem__(name, out[0]))
        for name, part in parts.items()
    ]
    try:
        logits_TV = model(torch.tensor([inputs]))[0].float()
    finally:
        for hook in hooks:
            hook.remove()
    log_p_TV = logits_TV.log_softmax(dim=-1)
    likeliest_T = logits_TV.argmax(dim=-1)
    log_true_T = log_p_TV.gather(1, torch.tensor(targets).unsqueeze(1)).squeeze(1)
    stages = [
        Stage("text", "as it is read", [_shown(tokenizer, token) for token in inputs]),
        Stage("token ids", f"{tokenizer.name}, {model.config.vocab_size:,} of them", [str(token) for token in inputs]),
    ]
    for name, x_TD in seen.items():
        root_mean_square_T = x_TD.square().mean(dim=1).sqrt()
        stages.append(Stage(name, f"RMS of {x_TD.shape[1]} channels", _numbers(root_mean_square_T)))
    stages += [
        Stage("logits", "the largest of V", _numbers(logits_TV.max(dim=-1).values)),
        Stage("likeliest", "its token", [_shown(tokenizer, int(token)) for token in likeliest_T]),
        Stage("softmax", "P(likeliest)", _numbers(log_p_TV.max(dim=-1).values.exp())),
        Stage("target", "the text, shifted by one", [_shown(tokenizer, token) for token in targets]),
        Stage("P(target)", "at temperature 1", _numbers(log_true_T.exp())),
        Stage("loss", "-ln P(target), nats", _numbers(-log_true_T)),
    ]
    return Pipeline(stages, (-log_true_T).tolist())


def draw(pipeline: Pipeline, title: str) -> str:
    """The picture as the text of an SVG file."""
    columns = len(pipeline.stages[0].values)
    width, height = LEFT + CELL * columns + 16, TOP + ROW * len(pipeline.stages) + 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="16" fill="#222222">{escape(title)}</text>',
    ]
    most = max(pipeline.losses)
    for row, stage in enumerate(pipeline.stages):
        y = TOP + ROW * row
        parts.append(f'<text x="16" y="{y + 10}" font-weight="bold" fill="#222222">{escape(stage.title)}</text>')
        parts.append(f'<text x="16" y="{y + 26}" font-size="11" fill="#666666">{escape(stage.explanation)}</text>')
        for column, value in enumerate(stage.values):
            x = LEFT + CELL * column
            fill = "#eef3f8"
            if stage.title == "loss":
                share = pipeline.losses[column] / most if most > 0 else 0.0
                fill = f"rgb({255 - round(30 * share)},{255 - round(110 * share)},{255 - round(160 * share)})"
            parts.append(f'<rect x="{x}" y="{y - 8}" width="{CELL - 6}" height="32" rx="4" fill="{fill}"/>')
            parts.append(f'<text x="{x + CELL / 2 - 3}" y="{y + 13}" text-anchor="middle">{escape(value)}</text>')
    y = TOP + ROW * len(pipeline.stages) + 12
    parts.append(
        f'<text x="16" y="{y}" fill="#222222">mean loss {pipeline.loss:.3f} nats per token, '
        f"perplexity {math.exp(pipeline.loss):.2f}</text>"
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shown(tokenizer: Tokenizer, token: int) -> str:
    text = tokenizer.show(token).replace(" ", "\u00b7")
    return text if len(text) <= 7 else f"{text[:6]}."


def _numbers(values_T: Tensor | Sequence[float]) -> list[str]:
    return [f"{float(value):.3g}" for value in values_T]
