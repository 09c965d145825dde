"""Values that travel between trainer and collector: restorable tiers, preflights, notices and probes. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import MAX_SHORT_TEXT, decode_number, encode_number, is_text, is_tier
from lossguard.vocabulary.states import OrderKind, Tier


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorableTier:
    """The restorable steps of one tier. A time is None until this process has measured it: nothing is estimated."""

    tier: Tier
    steps: tuple[int, ...]
    load_seconds: float | None = None
    """How long the last load took, its verification included."""
    save_seconds: float | None = field(default=None, compare=False)
    """How long the last save held the loop up. It differs with each save, so it alone is no news."""

    def to_wire(self) -> dict[str, Any]:
        """As in a spool and in a report; a time that is not measured is left out."""
        times = {"load_seconds": self.load_seconds, "save_seconds": self.save_seconds}
        known = {name: round(seconds, 6) for name, seconds in times.items() if seconds is not None}
        return {"tier": self.tier, "steps": list(self.steps), **known}


# Preflights: questions of the collector before a person approves a rollback, and the trainer's answers.

MAX_TEXTS = 3
"""Batches of which a text is reported: the first of those that are to be skipped."""
MAX_CHARACTERS = 200
"""Of each of these texts."""
MAX_SENTENCE = 500
"""Characters of a reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Could this rollback be carried out now?"""

    id: str
    """Each is answered once by a process."""
    step: int
    """The checkpoint to restore."""
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None

    @classmethod
    def from_wire(cls, body: Any) -> "Question | None":
        """None for what is no question that this release can answer."""
        try:
            order = Order.from_wire({**body, "id": 0, "kind": OrderKind.ROLLBACK, "rewind_to": body["step"]})
        except (KeyError, TypeError, ValueError):
            return None
        if not isinstance(body.get("id"), str) or order.rewind_to is None:
            return None
        changes = {name: getattr(order, name) for name in ("skip_from", "skip_to", "lr_scale")}
        return cls(id=body["id"], step=order.rewind_to, **changes)

    def as_order(self) -> Order:
        """The order that an approval would make of it."""
        return Order(
            id=0,
            kind=OrderKind.ROLLBACK,
            rewind_to=self.step,
            skip_from=self.skip_from,
            skip_to=self.skip_to,
            lr_scale=self.lr_scale,
            approved_by="a person",
        )

    def batches(self) -> range:
        """Those of which a text is reported."""
        first, end = self.skip_from or 0, self.skip_to or 0
        return range(first, max(first, min(end, first + MAX_TEXTS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the trainer found."""

    id: str
    """Of the question."""
    problem: str = ""
    """Why the checkpoint cannot be restored; empty if it is there and whole, as far as a quick look tells."""
    tier: str | None = None
    """Where it is kept (`lossguard.vocabulary.states.Tier`)."""
    refused: str = ""
    """Why the trainer would refuse the order; empty if it would carry it out."""
    texts: tuple[tuple[int, str], ...] = ()
    """Batches that are to be skipped, with their text: index, text."""

    def to_wire(self) -> dict[str, Any]:
        """As in a spool and in a report."""
        assert self.tier is None or is_tier(self.tier)
        return {
            "id": self.id,
            "problem": self.problem[:MAX_SENTENCE],
            "tier": self.tier,
            "refused": self.refused[:MAX_SENTENCE],
            "texts": [{"batch": batch, "text": text[:MAX_CHARACTERS]} for batch, text in self.texts],
        }


# Notices: what the collector says to the person who trains, in its answers to reports.

MAX_NOTICE = 1_000
"""Characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """A sentence or two that the trainer logs once."""

    key: str
    """A process logs each once."""
    text: str

    def to_wire(self) -> dict[str, str]:
        """As in the answer to a report."""
        return {"key": self.key, "text": self.text[:MAX_NOTICE]}

    @classmethod
    def all_in(cls, answer: Mapping[str, Any]) -> "list[Notice]":
        """The notices of an answer; what is none is left out."""
        given = answer.get("notices")
        return [*filter(None, map(cls.from_wire, given if isinstance(given, list) else ()))]

    @classmethod
    def from_wire(cls, body: Any) -> "Notice | None":
        """In one line, without control characters; None for what is no notice."""
        if not isinstance(body, dict) or not is_text(body.get("key"), MAX_SHORT_TEXT) or not is_text(body.get("text")):
            return None
        printable = "".join(letter if letter.isprintable() else " " for letter in body["text"][:MAX_NOTICE])
        return cls(key=body["key"], text=" ".join(printable.split()))


# Probes: the distribution of the next token that a model predicts after a fixed prompt.

MAX_TOKENS = 256
"""Named tokens of a probe: a vocabulary of bytes is stored completely, of a larger one only the likeliest tokens."""
MAX_TEXT_LENGTH = 1000
"""Characters of a prompt and of a token."""
ROUNDING = 1e-3
"""Nats."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Probe:
    """Raises ValueError for inconsistent fields. Log probabilities are in nats, and may be NaN or infinite."""

    prompt: str
    tokens: tuple[str, ...]
    """The texts of the tokens, the likeliest first."""
    log_probabilities: tuple[float, ...]
    """One per token."""
    target: str | None = None
    """The token that follows in the text, if known."""
    target_log_probability: float | None = None
    """Also if the target is not among `tokens`."""
    rest_count: int = 0
    """Number of the other tokens in the vocabulary."""
    rest_log_probability: float | None = None
    """The logarithm of their summed probability; None when there are none."""
    entropy: float | None = None
    """Of the whole distribution, in nats; None if it was not recorded. `tokens` alone give an upper bound of it."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.tokens) <= MAX_TOKENS:
            raise ValueError(f"a probe names 1 to {MAX_TOKENS} tokens, not {len(self.tokens)}: give the likeliest")
        if len(self.tokens) != len(self.log_probabilities):
            raise ValueError(f"{len(self.tokens)} tokens have {len(self.log_probabilities)} log probabilities")
        if max(len(self.prompt), *map(len, self.tokens)) > MAX_TEXT_LENGTH:
            raise ValueError(f"a prompt and a token have at most {MAX_TEXT_LENGTH} characters")
        if (self.target is None) != (self.target_log_probability is None):
            raise ValueError("a target and its log probability go together")
        if self.rest_count < 0 or (self.rest_count == 0) != (self.rest_log_probability is None):
            raise ValueError("the rest has a log probability exactly when it has tokens")
        most = math.log(len(self.tokens) + self.rest_count)
        if self.entropy is not None and not math.isnan(self.entropy) and not 0.0 <= self.entropy <= most + ROUNDING:
            raise ValueError(f"an entropy lies between 0 and {most:.3f} nats, the logarithm of the number of tokens")

    def to_details(self) -> dict[str, Any]:
        """The JSON form: the details of an event of kind `probe`."""
        entropy = {} if self.entropy is None else {"entropy": encode_number(self.entropy)}
        return {
            "prompt": self.prompt,
            "target": self.target,
            "tokens": list(self.tokens),
            "log_probabilities": [encode_number(value) for value in self.log_probabilities],
            "target_log_probability": encode_number(self.target_log_probability),
            "rest": {"count": self.rest_count, "log_probability": encode_number(self.rest_log_probability)},
        } | entropy

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Self:
        """Undo `to_details`. Raises ValueError when `details` are not those of a probe."""
        try:
            rest = details["rest"]
            return cls(
                prompt=_text(details["prompt"]),
                tokens=tuple(map(_text, details["tokens"])),
                log_probabilities=tuple(map(_number, details["log_probabilities"])),
                target=None if details["target"] is None else _text(details["target"]),
                target_log_probability=decode_number(details["target_log_probability"]),
                rest_count=_count(rest["count"]),
                rest_log_probability=decode_number(rest["log_probability"]),
                entropy=decode_number(details.get("entropy")),
            )
        except KeyError as missing:
            raise ValueError(f"a probe needs {missing}") from None
        except TypeError as wrong:
            raise ValueError(f"not the form of a probe: {wrong}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a text")
    return value


def _number(value: Any) -> float:
    number = decode_number(value)
    if number is None:
        raise ValueError("a token has no log probability")
    return number


def _count(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} is not a count")
    return value
