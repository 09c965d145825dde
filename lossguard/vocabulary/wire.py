"""Values that travel between trainer and collector: restorable tiers, preflights, notices, arms and probes. Pure."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import (
    MAX_SHORT_TEXT,
    decode_number,
    encode_number,
    is_remedy,
    is_step,
    is_text,
    is_tier,
    plain_json,
)
from lossguard.vocabulary.states import Arm, OrderKind, Tier


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorableTier:
    """The restorable steps of one tier. A time is None until this process has measured it: nothing is estimated."""

    tier: Tier
    steps: tuple[int, ...]
    load_seconds: float | None = None
    """Seconds that the last load took, its verification included."""
    save_seconds: float | None = field(default=None, compare=False)
    """Seconds for which the last save held the loop up. It differs with each save, so it alone is no news."""

    def to_wire(self) -> dict[str, Any]:
        """Return the tier as in a spool and in a report; a time that is not measured is left out."""
        times = {"load_seconds": self.load_seconds, "save_seconds": self.save_seconds}
        known = {name: round(seconds, 6) for name, seconds in times.items() if seconds is not None}
        return {"tier": self.tier, "steps": list(self.steps), **known}


# Preflights: questions of the collector before a person approves a rollback, and the trainer's answers.

MAX_TEXTS = 3
"""Batches of which a text is reported: the first of those that are to be skipped."""
MAX_CHARACTERS = 200
"""Maximum characters of each of these texts."""
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
            order = Order.from_wire({**body, "key": "", "id": 0, "kind": OrderKind.ROLLBACK, "rewind_to": body["step"]})
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
            key="",
            kind=OrderKind.ROLLBACK,
            rewind_to=self.step,
            skip_from=self.skip_from,
            skip_to=self.skip_to,
            lr_scale=self.lr_scale,
            approved_by="a person",
        )

    def batches(self) -> range:
        """Return the batches of which a text is reported."""
        first, end = self.skip_from or 0, self.skip_to or 0
        return range(first, max(first, min(end, first + MAX_TEXTS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The trainer's answer."""

    id: str
    """Id of the question."""
    problem: str = ""
    """Reason why the checkpoint cannot be restored; empty if it is there and whole, as far as a quick look tells."""
    tier: str | None = None
    """Tier in which the checkpoint is kept (`lossguard.vocabulary.states.Tier`)."""
    refused: str = ""
    """Reason why the trainer would refuse the order; empty if it would carry it out."""
    texts: tuple[tuple[int, str], ...] = ()
    """Batches that are to be skipped, with their text: index, text."""

    def to_wire(self) -> dict[str, Any]:
        """Return the answer as in a spool and in a report."""
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
        """Return the notice as in the answer to a report."""
        return {"key": self.key, "text": self.text[:MAX_NOTICE]}

    @classmethod
    def all_in(cls, answer: Mapping[str, Any]) -> "list[Notice]":
        """The notices of an answer, each in one line without control characters; what is none is left out."""
        notices = []
        for body in given if isinstance(given := answer.get("notices"), list) else ():
            if isinstance(body, dict) and is_text(body.get("key"), MAX_SHORT_TEXT) and is_text(body.get("text")):
                printable = "".join(letter if letter.isprintable() else " " for letter in body["text"][:MAX_NOTICE])
                notices.append(cls(key=body["key"], text=" ".join(printable.split())))
        return notices


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turn the errors about JSON of another form into a ValueError in one sentence."""
    try:
        yield
    except KeyError as missing:
        raise ValueError(f"{missing} is missing in {what}") from None
    except TypeError as wrong:
        raise ValueError(f"not the form of {what}: {wrong}") from None


# Arms: what each treatment of an incident led to, where a guard has tried them all.

FIGURES = ("loss", "difference", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmResult:
    """The result of one arm. Losses are held-out losses in nats, all on the same documents; they may not be finite."""

    arm: Arm
    steps: int
    """Steps that it trained."""
    loss: float
    """At its end."""
    difference: float
    """Its loss minus that of the arm `wait`,"""
    error: float
    """and the standard error of that, paired over the documents; NaN for a single one."""
    got_past: bool
    """Its loss is no higher than that of the checkpoint, up to what its noise explains."""
    skipped: int = 0
    """Batches that it left out."""
    remedy: str | None = None

    def to_details(self) -> dict[str, Any]:
        """Return the result as JSON."""
        details: dict[str, Any] = plain_json(self)
        return details

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Self:
        """Undo `to_details`. Raises ValueError, KeyError or TypeError for what is no result."""
        remedy, got_past = details["remedy"], details["got_past"]
        if not isinstance(got_past, bool) or not (remedy is None or is_remedy(remedy)):
            raise ValueError(f"got_past={got_past!r:.40} is true or false, and remedy={remedy!r:.80} a name or null")
        values: dict[str, Any] = {name: _number(details[name], f"{name} of an arm") for name in FIGURES}
        values |= {name: _step(details[name]) for name in ("steps", "skipped")}
        return cls(arm=Arm(details["arm"]), got_past=got_past, remedy=remedy, **values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmsTried:
    """The arms of one order."""

    order: int
    """Its id."""
    rewind_to: int
    """The step of the checkpoint that the arms went back to,"""
    tier: str | None
    """and where it was kept."""
    window: int
    """Steps that each arm trained beyond the one at which the order came."""
    results: tuple[ArmResult, ...]

    def to_details(self) -> dict[str, Any]:
        """The JSON form: the details of an event of kind `arms`."""
        place = {name: getattr(self, name) for name in ("order", "rewind_to", "tier", "window")}
        return {**place, "arms": [each.to_details() for each in self.results]}

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Self:
        """Undo `to_details`. Raises ValueError when `details` are not those of arms."""
        with _decoding("arms"):
            results = tuple(map(ArmResult.from_details, details["arms"]))
            if details["tier"] is not None and not is_tier(details["tier"]):
                raise ValueError(f"tier={details['tier']!r:.80} is the name of a tier or null")
            if len({each.arm for each in results}) < len(results) or not results:
                raise ValueError("arms need results, one for each arm")
            places = {name: _step(details[name]) for name in ("order", "rewind_to", "window")}
            return cls(**places, tier=details["tier"], results=results)


def _step(value: object) -> int:
    if not is_step(value):
        raise ValueError(f"{value!r:.40} is not a number of steps")
    assert isinstance(value, int)
    return value


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
    """Entropy of the whole distribution, in nats; None if not recorded. `tokens` alone give an upper bound of it."""

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
        with _decoding("a probe"):
            rest = details["rest"]
            return cls(
                prompt=_text(details["prompt"]),
                tokens=tuple(map(_text, details["tokens"])),
                log_probabilities=tuple(_number(each, "a log probability") for each in details["log_probabilities"]),
                target=None if details["target"] is None else _text(details["target"]),
                target_log_probability=decode_number(details["target_log_probability"]),
                rest_count=_count(rest["count"]),
                rest_log_probability=decode_number(rest["log_probability"]),
                entropy=decode_number(details.get("entropy")),
            )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a text")
    return value


def _number(value: Any, what: str) -> float:
    number = decode_number(value)
    if number is None:
        raise ValueError(f"{what} is missing")
    return number


def _count(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} is not a count")
    return value
