"""The search, the orders, the tags and the settings by which lists show runs. Pure."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import ge, gt, le, lt
from typing import Any

from lossguard.vocabulary.protocol import encodable

# Settings by dotted path: {"optimizer": {"lr": 3e-4}} has the setting `optimizer.lr`.


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted names: {"model": {"width": 128}} is {"model.width": 128}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def settings_named(settings: Mapping[str, Any], name: str) -> list[Any]:
    """The values of the flattened setting `name`, else of every setting whose last component that is."""
    if name in settings:
        return [settings[name]]
    ending = f".{name}"
    return [value for path, value in settings.items() if path.endswith(ending)]


# Tags.


def tags_of(given: Any, config: Mapping[str, Any]) -> list[str]:
    """`given`: those that people gave it, or None; until then the strings in the list under "tags" in its `config`."""
    found = config.get("tags") if given is None else given
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


# Orders of a list.


class RunOrder(StrEnum):
    """Equal runs are sorted newest first."""

    NEWEST = "newest"  # those that started last
    REPORT = "last_report"  # those that reported last
    ATTENTION = "attention"  # those that need a person, then silent ones, then running ones
    INCIDENTS = "open_incidents"  # those with most open incidents
    NAME = "name"  # by project and name


# The search: words, and conditions on what is known of a run.
#
#     gpt -debug state:running lr>1e-3 optimizer.name=adamw steps>=10k loss<2.5 note:"two words" -archived
#
# A word must occur in the text of a run. A condition is a name, an operator and a value: `:` asks whether a text
# contains the value and whether a number equals it, `=` and `!=` compare the whole, `<`, `<=`, `>` and `>=` compare
# numbers. A minus in front excludes what matches. Quotes keep spaces together, and an operator in them is an ordinary
# character. `db.runs.conditions` says what the names mean.


class Operator(StrEnum):
    CONTAINS = ":"  # a text contains the value, in any case; a number equals it
    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="


ORDERS: Mapping[Operator, Callable[[float, float], bool]] = {
    Operator.LESS: lt,
    Operator.AT_MOST: le,
    Operator.GREATER: gt,
    Operator.AT_LEAST: ge,
}
TAG, DEVICE = "tag", "device"
"""Names of which a run has several values."""
ARCHIVED = "archived"
"""A word that is a condition of its own: `archived` is `archived:yes`, and `-archived` excludes such runs."""
SETTING, METRIC = "config.", "metric."
"""Before a name: it is that of a setting, or of a metric, and nothing else."""
MAX_TERMS, MAX_TERM = 32, 256
"""Terms of a search, and characters of one: each term is a condition for every run."""
TRUE, FALSE = ("true", "yes"), ("false", "no")
NULL = ("null", "none")
UNITS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}

_TOKEN = re.compile(r'(?:[^\s"]|"[^"]*(?:"|\Z))+')
_CONDITION = re.compile(r'([^\s"<>=:!]*)(<=|>=|!=|[:=<>])(.*)', re.DOTALL)
_PLAIN = re.compile(r'[^\s"<>=:!-][^\s"<>=:!]*')
"""A word or value that means the same without quotes."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    excluded: bool = False

    def __str__(self) -> str:
        plain = _PLAIN.fullmatch(self.text) and self.text != ARCHIVED
        return ("-" if self.excluded else "") + (self.text if plain else f'"{self.text}"')


@dataclass(frozen=True, slots=True)
class Condition:
    name: str
    operator: Operator
    value: str
    excluded: bool = False

    def __str__(self) -> str:
        value = self.value if _PLAIN.fullmatch(self.value) else f'"{self.value}"'
        return f"{'-' if self.excluded else ''}{self.name}{self.operator}{value}"

    def holds(self, value: float | str | bool | None) -> bool:
        """Return True if a metric or a state meets the condition; None: the run has no such value."""
        if value is None or self.operator is Operator.NOT_EQUAL:
            equal = replace(self, operator=Operator.EQUAL)
            return self.operator is Operator.NOT_EQUAL and (value is None or not equal.holds(value))
        if self.operator in ORDERS:
            limit, is_number = number_of(self.value), not isinstance(value, str | bool)
            return limit is not None and is_number and ORDERS[self.operator](float(value), limit)
        return _equals(value, self.value, whole=self.operator is Operator.EQUAL)


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions of a search, and one sentence for each part that cannot be read."""

    terms: tuple[Word | Condition, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Names in the conditions."""
        return {term.name for term in self.terms if isinstance(term, Condition)}

    def without(self, names: Iterable[str]) -> "Search":
        """Return the search without the conditions on these names."""
        left_out = set(names)
        kept = (term for term in self.terms if isinstance(term, Word) or term.name not in left_out)
        return replace(self, terms=tuple(kept))

    def __str__(self) -> str:
        """Parsed again, it is the same terms."""
        return " ".join(map(str, self.terms))


def parse(text: str) -> Search:
    """Read a search. Never raises: what cannot be read is a sentence in `problems`, and the rest applies."""
    terms: list[Word | Condition] = []
    problems: list[str] = []
    tokens = _TOKEN.findall(text)
    if len(tokens) > MAX_TERMS:
        problems.append(f"A search has at most {MAX_TERMS} terms, and this one has {len(tokens)}.")
    for token in tokens[:MAX_TERMS]:
        term = _term(token) if len(token) <= MAX_TERM else f"{token[:20]}..: a term has at most {MAX_TERM} characters."
        (problems if isinstance(term, str) else terms).append(term)  # type: ignore[arg-type]
    return Search(tuple(terms), tuple(problems))


def number_of(text: str) -> float | None:
    """A number, which may end in k, M, B or T; None if it is none."""
    unit = UNITS.get(text[-1:], 1.0)
    try:
        return float(text if unit == 1.0 else text[:-1]) * unit
    except ValueError:
        return None


def _term(token: str) -> Word | Condition | str:
    """The term, or what is wrong with it."""
    if "\0" in token or not encodable(token):
        return f"{token!a}: no name or value has such a character."
    excluded = len(token) > 1 and token.startswith("-")
    body = token[1:] if excluded else token
    found = _CONDITION.match(body)
    if body == ARCHIVED:
        return Condition(ARCHIVED, Operator.CONTAINS, TRUE[1], excluded)
    if found is None:
        text = body.replace('"', "")
        return Word(text, excluded) if text else f"{token}: there is no word between the quotes."
    name, operator, value = found[1], Operator(found[2]), found[3].replace('"', "")
    if not name:
        return f"{token}: a name must stand before {operator}, as in loss<2.5."
    if not found[3]:
        return f"{token}: a value must follow {operator}, as in {name}{operator}3."
    if operator in ORDERS and ((limit := number_of(value)) is None or math.isnan(limit)):
        return f"{token}: a number must follow {operator}, not {value!r}."
    return Condition(name, operator, value, excluded)


def _equals(value: float | str | bool, wanted: str, *, whole: bool) -> bool:
    if isinstance(value, bool):
        return wanted.casefold() in (TRUE if value else FALSE)
    if isinstance(value, int | float):
        number = number_of(wanted)
        return number is not None and (value == number or (value != value and number != number))
    text, folded = value.casefold(), wanted.casefold()
    return text == folded if whole else folded in text
